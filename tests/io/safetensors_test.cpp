// SPDX-License-Identifier: Apache-2.0
// tests/io/safetensors_test.cpp: round trips, conversions, and every way a file can be broken
#include <spectral/io/safetensors.hpp>

#include "support/golden.hpp"

#include <sys/resource.h>

#include <cmath>
#include <csignal>
#include <cstring>
#include <limits>
#include <numeric>

using namespace spectral;
using spectral::test::sentence_of;

namespace {
std::string with_length(std::uint64_t length, const std::string& rest) {
    std::string out(8, '\0');
    std::memcpy(out.data(), &length, 8);
    return out + rest;
}
std::string file_of(const std::string& header, std::size_t data) {
    return with_length(header.size(), header + std::string(data, '\0'));
}
safetensors_file open(const std::string& bytes) {
    return safetensors_file(std::as_bytes(std::span(bytes.data(), bytes.size())), "bad.safetensors");
}
std::string entry(const std::string& name, const std::string& type, const std::string& shape,
                  const std::string& offsets) {
    return "\"" + name + "\":{\"dtype\":\"" + type + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}
std::string one(const std::string& type, const std::string& shape, const std::string& offsets) {
    return "{" + entry("w", type, shape, offsets) + "}";
}
}  // namespace

TEST_CASE("safetensors: what is written is read back") {
    const test::temporary_dir dir;
    const std::vector<float> w{1.5f, -2.0f, std::numeric_limits<float>::quiet_NaN(), 4.0f, 5.0f, 6.0f};
    const std::vector<std::int64_t> ids{1, -2, std::int64_t{1} << 40};
    const std::vector<bfloat16> b{bfloat16(1.0f), bfloat16(-3.0f), bfloat16(0.5f)};
    const std::vector<std::uint8_t> bytes{7, 8, 9};
    const std::vector<double> scalar{3.25}, empty;
    safetensors_writer writer;
    writer.add("bytes", {3}, bytes);
    writer.add("w", {2, 3}, std::span<const float>(w));
    writer.add("b", {3}, b);
    writer.add("ids", {3}, ids);
    writer.add("scalar", {}, scalar);
    writer.add("empty", {0, 5}, empty);
    writer.set_metadata("format", "pt");
    writer.set_metadata("größe", "\"klein\"");
    writer.write(dir / "x.safetensors");
    writer.write(dir / "x.safetensors");  // replaces
    CHECK(dir.files() == 1);

    const safetensors_file file(dir / "x.safetensors");
    CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}, {"größe", "\"klein\""}});
    CHECK(file.tensors().size() == 6);
    CHECK(file.at("w").shape == std::vector<spectral::index>{2, 3});
    CHECK(file.at("w").dtype == dtype::f32);
    const auto read = file.read<float>("w");
    CHECK(std::memcmp(read.data(), w.data(), w.size() * 4) == 0);  // the NaN too
    CHECK(file.read<std::int64_t>("ids") == ids);
    CHECK(file.read<double>("scalar") == scalar);
    CHECK(file.read<float>("empty").empty());
    CHECK(file.read<std::int32_t>("bytes") == std::vector<std::int32_t>{7, 8, 9});
    CHECK(file.read<double>("b") == std::vector<double>{1.0, -3.0, 0.5});
    for (const auto& [name, tensor] : file.tensors()) {  // wide types first: aligned although "bytes" sorts early
        INFO(name);
        CHECK(reinterpret_cast<std::uintptr_t>(tensor.data.data()) % std::max(1, dtype_bits(tensor.dtype) / 8) == 0);
    }
    const safetensors_file copy = file;  // shares the mapping. NOLINT(performance-unnecessary-copy-initialization)
    CHECK(copy.at("ids").data.data() == file.at("ids").data.data());
}

TEST_CASE("safetensors: elements are converted, and what does not fit is refused") {
    const std::vector<double> values{0.1, -2.5, 1e300};
    const std::vector<float16> halves{float16(0.1f), float16(-65504.0f)};
    const std::vector<std::int64_t> large{5, std::int64_t{1} << 33};
    const std::vector<std::int8_t> negative{-1};
    const std::vector<std::uint64_t> huge{std::uint64_t{1} << 63};
    const test::temporary_dir dir;
    safetensors_writer writer;
    writer.add("f64", {3}, values);
    writer.add("f16", {2}, halves);
    writer.add("i64", {2}, large);
    writer.add("i8", {1}, negative);
    writer.add("u64", {1}, huge);
    writer.add("fp8", dtype::f8_e4m3, {1}, std::as_bytes(std::span(negative)));
    writer.write(dir / "x.safetensors");
    const safetensors_file file(dir / "x.safetensors");
    CHECK(file.read<float>("f64") == std::vector<float>{0.1f, -2.5f, std::numeric_limits<float>::infinity()});
    CHECK(file.read<double>("f16")[0] == Approx(0.1).epsilon(1e-3));
    CHECK(static_cast<float>(file.read<bfloat16>("f64")[1]) == -2.5f);
    CHECK(file.read<double>("i64")[1] == 8589934592.0);
    CHECK_SENTENCE(file.read<std::int32_t>("i64"), "tensor \"i64\", element 1: the value does not fit into I32");
    CHECK_SENTENCE(file.read<std::uint64_t>("i8"), "does not fit into U64");
    CHECK_SENTENCE(file.read<std::int64_t>("u64"), "does not fit into I64");
    CHECK_SENTENCE(file.read<std::int64_t>("f64"), "tensor \"f64\" holds F64, which cannot be read as I64");
    CHECK_SENTENCE(file.read<float>("fp8"), "holds F8_E4M3, which cannot be read as F32");
    CHECK_SENTENCE(file.read<float>("f46"), "there is no tensor \"f46\"; did you mean \"f16\"?");
    CHECK_SENTENCE(file.at("nothing like it"), "x.safetensors: there is no tensor \"nothing like it\"");
    std::vector<float> two(2);
    CHECK_SENTENCE(file.read<float>("f64", std::span<float>(two)),
                   "elements of tensor \"f64\" of shape [3]: expected 3, found 2");
}

TEST_CASE("safetensors: unaligned data of foreign writers is read") {
    const std::string header = "{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("b", "F64", "[1]", "[1,9]") + "}";
    std::string bytes = file_of(header, 9);
    const double value = 1.25;
    std::memcpy(bytes.data() + bytes.size() - 8, &value, 8);
    CHECK(open(bytes).read<double>("b") == std::vector<double>{1.25});
    CHECK(open(bytes).read<float>("b") == std::vector<float>{1.25f});
    CHECK(open(file_of("{}   ", 0)).tensors().empty());
}

TEST_CASE("safetensors: broken files are refused with a sentence") {
    CHECK_SENTENCE(open("short"), "bad.safetensors: expected at least 8 bytes of header length, found 5");
    CHECK_SENTENCE(open(with_length(100'000'001, "{}")), "header length: expected at most 100000000, found 100000001");
    CHECK_SENTENCE(open(with_length(~std::uint64_t{0}, "{}")), "found 18446744073709551615");
    CHECK_SENTENCE(open(with_length(3, "{}")), "expected at most 2 (the rest of the file), found 3");
    CHECK_SENTENCE(open(with_length(0, "{}")), "expected '{' as its first byte");
    CHECK_SENTENCE(open(file_of(" {}", 0)), "expected '{' as its first byte");
    CHECK_SENTENCE(open(file_of("\xef\xbb\xbf{}", 0)), "expected '{' as its first byte");
    CHECK_SENTENCE(open(file_of("{\"a\":", 0)), "not valid JSON: parse error at line 1, column");
    CHECK_SENTENCE(open(file_of("{}x", 0)), "not valid JSON");
    CHECK_SENTENCE(open(file_of("{\"a\xff\":{}}", 0)), "ill-formed UTF-8");
    const std::string w = entry("w", "U8", "[1]", "[0,1]");
    CHECK_SENTENCE(open(file_of("{" + w + "," + w + "}", 1)), "key \"w\" appears twice in one JSON object");
    CHECK_SENTENCE(open(file_of(R"({"w":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", 1)),
                   "key \"dtype\" appears twice");
    CHECK_SENTENCE(open(file_of("{\"w\":" + std::string(5000, '[') + std::string(5000, ']') + "}", 0)),
                   "JSON is nested deeper than 100 levels");
    // entries that lie
    CHECK_SENTENCE(open(file_of("{\"w\":[]}", 0)), "tensor \"w\": expected an object, found array");
    CHECK_SENTENCE(open(file_of(R"({"w":{"shape":[1],"data_offsets":[0,1]}})", 1)), "field \"dtype\" is missing");
    CHECK_SENTENCE(open(file_of(R"({"w":{"dtype":"U8","data_offsets":[0,1]}})", 1)), "field \"shape\" is missing");
    CHECK_SENTENCE(open(file_of(R"({"w":{"dtype":"U8","shape":[1]}})", 1)), "field \"data_offsets\" is missing");
    CHECK_SENTENCE(open(file_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"x":0}})", 1)),
                   "unknown field \"x\"");
    CHECK_SENTENCE(open(file_of(one("F33", "[1]", "[0,4]"), 4)),
                   "expected a safetensors type such as F32, found \"F33\"");
    CHECK_SENTENCE(open(file_of(one("F32", "[-1]", "[0,4]"), 4)),
                   "shape: expected an integer from 0 to 2^63 - 1, found \"-1\"");
    CHECK_SENTENCE(open(file_of(one("F32", "[1.0]", "[0,4]"), 4)), "found \"1.0\"");
    CHECK_SENTENCE(open(file_of(one("F32", "[18446744073709551615]", "[0,4]"), 4)),
                   "shape: expected an integer from 0");
    CHECK_SENTENCE(open(file_of(one("F32", "1", "[0,4]"), 4)), "shape: expected an array, found number");
    CHECK_SENTENCE(open(file_of(one("F32", "[1]", "[0,4,4]"), 4)), "data_offsets: expected [begin, end]");
    CHECK_SENTENCE(open(file_of(one("F32", "[1]", "[-4,0]"), 4)), "data_offsets: expected an integer from 0");
    CHECK_SENTENCE(open(file_of(one("F32", "[1]", "[4,0]"), 4)), "expected begin <= end, found [4, 0]");
    CHECK_SENTENCE(open(file_of(one("F32", "[2]", "[0,8]"), 4)), "expected an end within the 4 bytes of data, found 8");
    CHECK_SENTENCE(open(file_of(one("F32", "[2]", "[0,4]"), 4)), "F32 of shape [2]: expected 8 bytes, found 4");
    CHECK_SENTENCE(open(file_of(one("F32", "[4611686018427387904,4]", "[0,4]"), 4)), "is not a whole number of bytes");
    CHECK_SENTENCE(open(file_of(one("F4", "[3]", "[0,2]"), 2)), "F4 of shape [3] is not a whole number of bytes");
    CHECK(open(file_of(one("F4", "[4]", "[0,2]"), 2)).at("w").data.size() == 2);
    // holes, overlaps, tails
    const auto two = [](const std::string& a, const std::string& b, std::size_t data) {
        return file_of("{" + entry("a", "U8", "[4]", a) + "," + entry("b", "U8", "[4]", b) + "}", data);
    };
    CHECK(open(two("[4,8]", "[0,4]", 8)).tensors().size() == 2);
    CHECK_SENTENCE(open(two("[0,4]", "[5,9]", 9)), "tensor \"b\": expected to begin at byte 4 of the data");
    CHECK_SENTENCE(open(two("[0,4]", "[2,6]", 6)), "tensor \"b\": expected to begin at byte 4");
    CHECK_SENTENCE(open(two("[0,4]", "[0,4]", 4)), "expected to begin at byte 4");
    CHECK_SENTENCE(open(two("[1,5]", "[5,9]", 9)), "tensor \"a\": expected to begin at byte 0");
    CHECK_SENTENCE(open(two("[0,4]", "[4,8]", 9)), "bytes of data: expected 8, found 9");
    CHECK_SENTENCE(open(file_of("{}", 1)), "bytes of data: expected 0, found 1");
    // metadata
    CHECK_SENTENCE(open(file_of(R"({"__metadata__":[]})", 0)),
                   "__metadata__: expected an object of strings, found array");
    CHECK_SENTENCE(open(file_of(R"({"__metadata__":{"a":1}})", 0)),
                   "__metadata__, \"a\": expected a string, found number");
}

TEST_CASE("safetensors: every truncation and every flipped header byte is survived") {
    const test::temporary_dir dir;
    const std::vector<float> w{1, 2, 3};
    safetensors_writer writer;
    writer.add("w", {3}, w);
    writer.add("v", {1, 3}, w);
    writer.set_metadata("k", "v");
    writer.write(dir / "x.safetensors");
    const std::string whole = read_text_file(dir / "x.safetensors");
    for (std::size_t n = 0; n < whole.size(); ++n) CHECK(sentence_of([&] { open(whole.substr(0, n)); }) != "");
    for (std::size_t i = 0; i + 24 < whole.size(); ++i)
        for (int bit = 0; bit < 8; ++bit) {
            std::string broken = whole;
            broken[i] = static_cast<char>(broken[i] ^ (1 << bit));
            sentence_of([&] { open(broken); });  // refused or read, never a crash
        }
}

TEST_CASE("safetensors: files that are no files") {
    const test::temporary_dir dir;
    CHECK_SENTENCE(safetensors_file(dir / "none"), "none: the file cannot be opened: No such file or directory");
    CHECK_SENTENCE(safetensors_file(std::filesystem::temp_directory_path()), "expected a regular file");
    write_file_atomically(dir / "empty", "");
    CHECK_SENTENCE(safetensors_file(dir / "empty"), "empty: the file is empty");
}

TEST_CASE("safetensors: what cannot be written leaves no file behind") {
    const test::temporary_dir dir;
    const std::vector<float> w(100'000, 1.0f);
    safetensors_writer writer;
    CHECK_SENTENCE(writer.add("w", {7}, w), "tensor \"w\": F32 of shape [7]: expected 28 bytes, found 400000");
    writer.add("w", {100'000}, w);
    CHECK_SENTENCE(writer.add("w", {100'000}, w), "tensor \"w\" is added twice");
    CHECK_SENTENCE(writer.add("__metadata__", {100'000}, w), "cannot be called __metadata__");
    CHECK_SENTENCE(writer.write(dir / "no/such/dir.safetensors"),
                   "the file cannot be created: No such file or directory");
    CHECK_SENTENCE(writer.write("/dev/full/x"), "the file cannot be created");

    write_file_atomically(dir / "x.safetensors", "old");
    struct ::rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct ::rlimit low = before;
    low.rlim_cur = 65536;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &low) == 0);
    const std::string sentence = sentence_of([&] { writer.write(dir / "x.safetensors"); });
    ::setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
    CHECK(sentence.find("x.safetensors: the file cannot be written: File too large") != std::string::npos);
    CHECK(dir.files() == 1);
    CHECK(read_text_file(dir / "x.safetensors") == "old");

    safetensors_writer bad;
    bad.set_metadata("k", "\xff");
    CHECK_SENTENCE(bad.write(dir / "y"), "is not valid UTF-8");
    CHECK(dir.files() == 1);
}

TEST_CASE("half types: all patterns survive, rounding is to nearest even") {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto raw = static_cast<std::uint16_t>(bits);
        const float h = static_cast<float>(float16::from_bits(raw)), b = static_cast<float>(bfloat16::from_bits(raw));
        // a signalling NaN may come back quiet; everything else comes back
        if (std::isnan(h))
            CHECK(std::isnan(static_cast<float>(float16(h))));
        else if (float16(h).bits != raw)
            FAIL("float16 " << bits);
        if (std::isnan(b))
            CHECK(std::isnan(static_cast<float>(bfloat16(b))));
        else if (bfloat16(b).bits != raw)
            FAIL("bfloat16 " << bits);
    }
    // between two neighbours: the nearer one, and the even one in the middle
    for (std::uint16_t raw = 0; raw < 0x7bff; ++raw) {
        const float low = static_cast<float>(float16::from_bits(raw));
        const float high = static_cast<float>(float16::from_bits(static_cast<std::uint16_t>(raw + 1)));
        const float middle = low + (high - low) / 2;
        const auto even = static_cast<std::uint16_t>(raw & 1 ? raw + 1 : raw);
        if (float16(middle).bits != even || float16(std::nextafter(middle, low)).bits != raw ||
            float16(std::nextafter(middle, high)).bits != raw + 1 || float16(-middle).bits != (even | 0x8000))
            FAIL("float16 rounds badly after " << raw);
    }
    CHECK(float16(65519.996f).bits == 0x7bff);
    CHECK(float16(65520.0f).bits == 0x7c00);
    CHECK(bfloat16(1.00390625f).bits == 0x3f80);  // 1 + 2^-8: tie, to even
    CHECK(bfloat16(1.01171875f).bits == 0x3f82);  // 1 + 3 * 2^-8: tie, to even
    CHECK(bfloat16(3.4e38f).bits == 0x7f80);  // overflow
}

TEST_CASE("safetensors: the golden files are read") {
    int files = 0;
    // the full set holds the repository's
    const auto dir = test::golden_dir("a").value_or(test::small_golden_dir() / "a");
    for (const auto& found : std::filesystem::recursive_directory_iterator(dir)) {
        if (found.path().extension() != ".safetensors") continue;
        const safetensors_file file(found.path());
        ++files;
        const test::temporary_dir out;
        safetensors_writer writer;
        for (const auto& [name, tensor] : file.tensors()) writer.add(name, tensor.dtype, tensor.shape, tensor.data);
        writer.set_metadata(file.metadata());
        writer.write(out / "copy");
        const safetensors_file copy(out / "copy");
        CHECK(copy.metadata() == file.metadata());
        for (const auto& [name, tensor] : file.tensors()) {
            CHECK(copy.at(name).shape == tensor.shape);
            CHECK(std::ranges::equal(copy.at(name).data, tensor.data));
        }
    }
    CHECK(files >= 5);
}
