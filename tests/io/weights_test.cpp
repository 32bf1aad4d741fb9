// SPDX-License-Identifier: Apache-2.0
// tests/io/weights_test.cpp: parameters kept as bfloat16: from files of every type, shared with a mapped one, and back
#include <spectral/io/weight_files.hpp>
#include <spectral/io/weights.hpp>
#include <support/catch.hpp>
#include <support/executors.hpp>
#include <support/golden.hpp>
#include <support/random_data.hpp>

#include <limits>

namespace spectral::test {

namespace {
template <class T>
struct toy {
    parameter<T> weight{{7, 5}, initializer::normal(0.5)}, bias{{7}, initializer::normal(0.5)};

    explicit toy(bool narrow) {
        weight.trainable = !narrow;
        weight.narrow = narrow;
    }
    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        f(prefix + "weight", weight);
        f(prefix + "bias", bias);
    }
};

template <class Stored>
std::vector<Stored> stored_normals(index count, std::uint64_t seed) {
    std::vector<Stored> out;
    for (double v : normals(count, seed)) out.push_back(static_cast<Stored>(static_cast<float>(v)));
    return out;
}
template <class Stored>
void write_toy(const std::filesystem::path& file) {
    const auto weight = stored_normals<Stored>(35, 1), bias = stored_normals<Stored>(7, 2);
    safetensors_writer writer;
    writer.add("weight", {7, 5}, weight);
    writer.add("bias", {7}, bias);
    writer.write(file);
}
}  // namespace

TEMPLATE_LIST_TEST_CASE("weights: a BF16 file loaded narrow is the file loaded wide, bit for bit, without a copy",
                        "[io][weights]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const temporary_dir dir;
    write_toy<bfloat16>(dir / "model.safetensors");
    toy<T> wide(false), narrow(true);
    parameter_store<Exec, T> wide_store(ex, wide), narrow_store(ex, narrow);
    CHECK(narrow_store.masters().size() < wide_store.masters().size());  // the weight takes no room in the block
    {
        const auto files = weight_files::of_file(dir / "model.safetensors");
        load_weights(ex, wide_store, files);
        load_weights(ex, narrow_store, files);
        CHECK(narrow.weight.value.data == nullptr);
        CHECK(reinterpret_cast<const std::byte*>(narrow.weight.stored.data) == files.at("weight").data.data());
    }
    std::filesystem::remove(dir / "model.safetensors");  // the mapping lives as long as the store
    CHECK(to_host(ex, narrow.weight) == to_host(ex, wide.weight));
    CHECK(to_host(ex, narrow.bias) == to_host(ex, wide.bias));
    CHECK(narrow.weight.matrix().rows() == 7);
    CHECK(narrow.weight.matrix().width() == 5);
    CHECK(narrow.weight.matrix().is_narrow());
}

TEMPLATE_LIST_TEST_CASE("weights: other files are rounded to bfloat16 once", "[io][weights]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const temporary_dir dir;
    const auto check_file = [&](auto stored) {
        using Stored = decltype(stored);
        write_toy<Stored>(dir / "model.safetensors");
        toy<T> narrow(true);
        parameter_store<Exec, T> store(ex, narrow);
        load_weights(ex, store, safetensors_file(dir / "model.safetensors"));
        std::vector<T> want;
        for (Stored v : stored_normals<Stored>(35, 1)) want.push_back(widen<T>(bfloat16(static_cast<float>(v))));
        CHECK(to_host(ex, narrow.weight) == want);
    };
    check_file(float{});
    check_file(double{});
    check_file(float16{});
}

TEST_CASE("weights: memory that is not the file's own, or unaligned, is copied", "[io][weights]") {
    auto& ex = oracle::instance();
    const temporary_dir dir;
    write_toy<bfloat16>(dir / "model.safetensors");
    const mapped_file file(dir / "model.safetensors");
    toy<double> narrow(true);
    parameter_store<reference::executor, double> store(ex, narrow);
    {
        std::vector<std::byte> bytes(file.bytes().begin(), file.bytes().end());
        load_weights(ex, store, safetensors_file(bytes, "memory"));
        std::fill(bytes.begin(), bytes.end(), std::byte{0});
    }
    std::vector<double> want;
    for (bfloat16 v : stored_normals<bfloat16>(35, 1)) want.push_back(widen<double>(v));
    CHECK(to_host(ex, narrow.weight) == want);

    // one space more in the header: every tensor lies at an odd address
    std::string text(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
    std::uint64_t length = 0;
    std::memcpy(&length, text.data(), sizeof length);
    text.insert(8 + length, " ");
    ++length;
    std::memcpy(text.data(), &length, sizeof length);
    write_file_atomically(dir / "odd.safetensors", text);
    toy<double> again(true);
    parameter_store<reference::executor, double> other(ex, again);
    const safetensors_file odd(dir / "odd.safetensors");
    load_weights(ex, other, odd);
    CHECK(reinterpret_cast<const std::byte*>(again.weight.stored.data) != odd.at("weight").data.data());
    CHECK(to_host(ex, again.weight) == want);
}

TEMPLATE_LIST_TEST_CASE(
    "weights: initial values of a narrow parameter are the rounded ones of a wide one; saving widens", "[io][weights]",
    targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    toy<T> wide(false), narrow(true);
    parameter_store<Exec, T> wide_store(ex, wide), narrow_store(ex, narrow);
    wide_store.initialize(3);
    narrow_store.initialize(3);
    auto want = to_host(ex, wide.weight);
    for (T& v : want) v = widen<T>(bfloat16(static_cast<float>(v)));
    CHECK(to_host(ex, narrow.weight) == want);
    CHECK(to_host(ex, narrow.bias) == to_host(ex, wide.bias));

    const temporary_dir dir;
    safetensors_writer writer;
    std::vector<std::vector<T>> hold;
    add_weights(ex, narrow_store, writer, hold);
    writer.write(dir / "saved.safetensors");
    CHECK(safetensors_file(dir / "saved.safetensors").read<T>("weight") == want);
}

TEST_CASE("weights: a tied head is left out of a checkpoint, but not of an adapter's file", "[io][weights]") {
    CHECK(detail::redundant_tensor("lm_head.weight"));
    CHECK_FALSE(detail::redundant_tensor("base_model.model.lm_head.weight"));  // PEFT saved a head of its own
}

TEST_CASE("weights: what is kept as bfloat16 is frozen and read as such", "[io][weights]") {
    auto& ex = oracle::instance();
    toy<double> wrong(true), narrow(true), wide(false);
    wrong.weight.trainable = true;
    CHECK_SENTENCE((parameter_store<reference::executor, double>(ex, wrong)), "must be frozen");
    parameter_store<reference::executor, double> store(ex, narrow), other(ex, wide);
    store.initialize(1);
    CHECK_SENTENCE((view<const double, 2>(narrow.weight.matrix())), "kept as bfloat16");
    CHECK_SENTENCE(other.share(wide.weight, nullptr, nullptr), "not kept as bfloat16");
    CHECK_SENTENCE(store.assign(narrow.weight, std::vector<double>(3)), "number of values");
}

TEMPLATE_LIST_TEST_CASE("weights: a value that is not finite is named, converted or mapped", "[io][weights]", targets) {
    using Exec = typename TestType::executor;
    using T = typename TestType::scalar;
    auto& ex = TestType::instance();
    const temporary_dir dir;
    const auto refused = [&]<class Stored>(std::type_identity<Stored>, bool narrow, index at, float value) {
        std::vector<Stored> weight = stored_normals<Stored>(35, 1), bias = stored_normals<Stored>(7, 2);
        (at < 35 ? weight[static_cast<std::size_t>(at)] : bias[static_cast<std::size_t>(at - 35)]) =
            static_cast<Stored>(value);
        safetensors_writer writer;
        writer.add("weight", {7, 5}, weight);
        writer.add("bias", {7}, bias);
        writer.write(dir / "model.safetensors");
        toy<T> t(narrow);
        parameter_store<Exec, T> store(ex, t);
        const std::string sentence = "model.safetensors: tensor " + std::string(at < 35 ? "\"weight\"" : "\"bias\"") +
                                     ": expected finite values, found ";
        CHECK_SENTENCE(load_weights(ex, store, weight_files::of_file(dir / "model.safetensors")), sentence);
        CHECK_SENTENCE(load_weights(ex, store, weight_files::of_file(dir / "model.safetensors")),
                       " as value " + std::to_string(at % 35) + ": the model is broken");
    };
    const float infinite = std::numeric_limits<float>::infinity();
    for (bool narrow : {false, true})
        for (index at : {0, 34, 37})
            for (float value : {infinite, -infinite, std::numeric_limits<float>::quiet_NaN()}) {
                refused(std::type_identity<float>{}, narrow, at, value);
                refused(std::type_identity<bfloat16>{}, narrow, at, value);
                refused(std::type_identity<float16>{}, narrow, at, value);
            }
    std::vector<float> many(10000, std::numeric_limits<float>::max());
    CHECK(detail::first_not_finite(std::span<const float>(many)) == -1);
    many[9000] = infinite;
    CHECK(detail::first_not_finite(std::span<const float>(many)) == 9000);
}

}  // namespace spectral::test
