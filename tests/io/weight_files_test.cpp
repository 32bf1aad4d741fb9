// SPDX-License-Identifier: Apache-2.0
// tests/io/weight_files_test.cpp: the tensors of a directory, in one file or in shards; an index that lies
#include <spectral/io/weight_files.hpp>

#include "support/golden.hpp"

namespace spectral::test {

namespace {
using values = std::vector<float>;

void write_tensors(const std::filesystem::path& file, const std::map<std::string, values>& tensors,
                   const std::string& about = "") {
    safetensors_writer writer;
    if (!about.empty()) writer.set_metadata("about", about);
    for (const auto& [name, v] : tensors) writer.add(name, {static_cast<index>(v.size())}, v);
    writer.write(file);
}
void write_index(const temporary_dir& dir, const std::string& text) {
    write_file_atomically(dir / "model.safetensors.index.json", text);
}
void write_map(const temporary_dir& dir, const std::map<std::string, std::string>& places) {
    write_index(dir, nlohmann::json{{"metadata", {{"total_size", 20}}}, {"weight_map", places}}.dump());
}
values read(const weight_files& files, const std::string& tensor, std::size_t size) {
    values out(size);
    files.read(tensor, std::span<float>(out));
    return out;
}
const std::map<std::string, std::string> places{
    {"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "one.safetensors"}};
void write_shards(const temporary_dir& dir) {
    write_tensors(dir / "one.safetensors", {{"a", {1, 2}}, {"c", {5}}}, "first");
    write_tensors(dir / "two.safetensors", {{"b", {3, 4, 5}}}, "second");
}
}  // namespace

TEST_CASE("weight_files: one file", "[io][weight_files]") {
    const temporary_dir dir;
    write_tensors(dir / "model.safetensors", {{"a", {1, 2}}, {"b", {3}}}, "whole");
    for (const auto& files : {weight_files(dir / ""), weight_files::of_file(dir / "model.safetensors")}) {
        CHECK(files.name() == (dir / "model.safetensors").string());
        CHECK(files.metadata().at("about") == "whole");
        CHECK((files.contains("a") && !files.contains("c")));
        CHECK(read(files, "a", 2) == values{1, 2});
        CHECK(files.at("b").shape == std::vector<index>{1});
        CHECK(files.tensors().size() == 2);
        CHECK_SENTENCE(files.at("c"), (dir / "model.safetensors").string() + ": there is no tensor \"c\"");
    }
}

TEST_CASE("weight_files: shards behind an index", "[io][weight_files]") {
    const temporary_dir dir;
    write_shards(dir);
    write_map(dir, places);
    weight_files opened(dir / "");
    const weight_files files = std::move(opened);  // what it refers to stays where it is
    CHECK(files.name() == (dir / "model.safetensors.index.json").string());
    CHECK(read(files, "a", 2) == values{1, 2});
    CHECK(read(files, "b", 3) == values{3, 4, 5});
    CHECK(read(files, "c", 1) == values{5});
    CHECK(files.at("b").shape == std::vector<index>{3});
    CHECK(files.tensors().size() == 3);
    CHECK(files.metadata().at("about") == "first");
    CHECK_SENTENCE(files.at("d"), "model.safetensors.index.json: there is no tensor \"d\"");

    write_tensors(dir / "model.safetensors", {{"a", {9}}});  // a whole file wins
    CHECK(read(weight_files(dir / ""), "a", 1) == values{9});
}

TEST_CASE("weight_files: nothing there", "[io][weight_files]") {
    const temporary_dir dir;
    CHECK_SENTENCE(weight_files(dir / ""), (dir / "model.safetensors").string());
}

TEST_CASE("weight_files: an index that does not fit its shards", "[io][weight_files]") {
    const temporary_dir dir;
    write_shards(dir);
    const auto opened = [&] { return weight_files(dir / ""); };
    for (const char* text : {"[]", "{}", R"({"weight_map": []})", R"({"weight_map": null})"}) {
        write_index(dir, text);
        CHECK_SENTENCE(opened(), "expected an object with \"weight_map\"");
    }
    write_index(dir, R"({"weight_map": {}})");
    CHECK_SENTENCE(opened(), "weight_map: expected at least one tensor, found none");
    write_index(dir, R"({"weight_map": {"a": 1}})");
    CHECK_SENTENCE(opened(), "weight_map[\"a\"]: expected a file name");
    for (const char* name :
         {"", ".", "..", "../one.safetensors", "/etc/passwd", "x/../one.safetensors", "..\\\\one.safetensors"}) {
        write_index(dir, R"({"weight_map": {"a": ")" + std::string(name) + "\"}}");
        CHECK_SENTENCE(opened(), "weight_map[\"a\"]: expected a plain file name");
    }
    write_map(dir, {{"a", "three.safetensors"}});
    CHECK_SENTENCE(opened(), (dir / "three.safetensors").string());
    auto wrong = places;
    wrong["d"] = "two.safetensors";
    write_map(dir, wrong);
    CHECK_SENTENCE(opened(), "weight_map[\"d\"]: two.safetensors has no such tensor");
    wrong = places;
    wrong.erase("c");
    write_map(dir, wrong);
    CHECK_SENTENCE(opened(), "tensor \"c\": the index does not place it in this shard");
    write_tensors(dir / "two.safetensors", {{"a", {7, 7}}, {"b", {3, 4, 5}}});  // a tensor in both
    write_map(dir, places);
    CHECK_SENTENCE(opened(),
                   (dir / "two.safetensors").string() + ": tensor \"a\": the index does not place it in this shard");
}

}  // namespace spectral::test
