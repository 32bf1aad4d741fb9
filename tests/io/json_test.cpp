// SPDX-License-Identifier: Apache-2.0
// tests/io/json_test.cpp: strict JSON, atomic files, suggestions
#include <spectral/io/json.hpp>

#include "support/golden.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace spectral;

TEST_CASE("json: good text is parsed") {
    CHECK(parse_json(R"({"a":[1,2.5,"x",null,true],"b":{"a":1}})", "t")["b"]["a"] == 1);
    CHECK(parse_json<nlohmann::ordered_json>(R"({"z":1,"a":2})", "t").dump() == R"({"z":1,"a":2})");
    CHECK(parse_json(R"([{"a":1},{"a":2}])", "t").size() == 2);  // the same key in two objects
}

TEST_CASE("json: bad text is refused in a sentence that names the file") {
    CHECK_SENTENCE(parse_json("", "c.json"), "c.json: not valid JSON: parse error at line 1, column 1");
    CHECK_SENTENCE(parse_json("{\"a\":1}x", "c.json"), "column 8");
    CHECK_SENTENCE(parse_json("{\"a\":1,}", "c.json"), "not valid JSON");
    CHECK_SENTENCE(parse_json("// no\n1", "c.json"), "not valid JSON");
    CHECK_SENTENCE(parse_json("\"\xc3\"", "c.json"), "ill-formed UTF-8");
    CHECK_SENTENCE(parse_json("\"\\ud800\"", "c.json"), "not valid JSON");
    CHECK_SENTENCE(parse_json("1e999", "c.json"), "not valid JSON");
    CHECK_SENTENCE(parse_json("NaN", "c.json"), "not valid JSON");
    CHECK_SENTENCE(parse_json(R"({"a":1,"b":{"c":1,"c":2}})", "c.json"), "c.json: key \"c\" appears twice");
    CHECK_SENTENCE(parse_json<nlohmann::ordered_json>(R"({"a":1,"a":2})", "c.json"), "key \"a\" appears twice");
    CHECK_SENTENCE(parse_json(std::string(100'000, '['), "c.json"), "c.json: JSON is nested deeper than 100 levels");
    const std::string sentence = test::sentence_of([] { parse_json("\"" + std::string(10'000, '\x01'), "c.json"); });
    CHECK(!sentence.empty());
    CHECK(sentence.size() < 400);
}

TEST_CASE("json: files are read and replaced whole") {
    const test::temporary_dir dir;
    write_file_atomically(dir / "c.json", "{\"a\": 1}");
    write_file_atomically(dir / "c.json", "{\"a\": 2}");
    CHECK(dir.files() == 1);
    CHECK(read_json_file(dir / "c.json")["a"] == 2);
    CHECK_SENTENCE(read_text_file(dir / "none"), "none: the file cannot be opened: No such file or directory");
    CHECK_SENTENCE(read_text_file(std::filesystem::temp_directory_path()), "Is a directory");
    CHECK_SENTENCE(write_file_atomically(dir / "a/b", "x"), "the file cannot be created");
    std::filesystem::create_directory(dir / "taken");
    CHECK_SENTENCE(write_file_atomically(dir / "taken", "x"), "taken: the file cannot be renamed into place");
    CHECK(dir.files() == 2);
    {
        atomic_file never_committed(dir / "c.json");
        never_committed.write("half");
    }
    CHECK(read_text_file(dir / "c.json") == "{\"a\": 2}");
    CHECK(dir.files() == 2);
}

TEST_CASE("atomic files: a link is followed, a device and a pipe are written as they stand") {
    namespace fs = std::filesystem;
    const test::temporary_dir dir;
    fs::create_directory(dir / "there");
    fs::create_symlink("there/file", dir / "link");
    fs::create_symlink("link", dir / "link_to_link");
    for (const char* text : {"new", "newer"}) {  // first of all it leads nowhere
        write_file_atomically(dir / "link_to_link", text);
        CHECK(read_text_file(dir / "there/file") == text);
    }
    CHECK(fs::is_symlink(dir / "link"));
    CHECK(fs::is_symlink(dir / "link_to_link"));
    CHECK(std::distance(fs::directory_iterator(dir / "there"), {}) == 1);
    fs::create_symlink("/dev/full", dir / "full");
    CHECK_SENTENCE(write_file_atomically(dir / "full", "x"),
                   "full: the file cannot be written: No space left on device");
    write_file_atomically("/dev/null", "x");
    CHECK(fs::is_character_file("/dev/null"));

    REQUIRE(::mkfifo((dir / "pipe").c_str(), 0600) == 0);
    const int reader = ::open((dir / "pipe").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    REQUIRE(reader >= 0);
    write_file_atomically(dir / "pipe", "through");
    char got[16] = {};
    CHECK(::read(reader, got, sizeof got) == 7);
    CHECK(std::string_view(got) == "through");
    ::close(reader);
    CHECK(fs::is_fifo(dir / "pipe"));
}

TEST_CASE("names: the nearest known name is suggested, or none") {
    const std::vector<std::string> known{"hidden_size", "vocab_size", "tau"};
    CHECK(nearest_name("vocab_siez", known) == "vocab_size");
    CHECK(nearest_name("hiddensize", known) == "hidden_size");
    CHECK(nearest_name("xyz", known) == "");
    CHECK(nearest_name("ta", known) == "tau");
    CHECK(nearest_name("learning_rate", known) == "");
    CHECK(edit_distance("kitten", "sitting") == 3);
    CHECK(suggestion("vocab-size", known) == "; did you mean \"vocab_size\"?");
    CHECK(in_quotes("a\nb") == "\"a?b\"");
    CHECK(in_quotes("äöü", 3) == "\"ä...\"");
}
