// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/executor_test.cpp: what the CUDA executor says where it cannot work: no device, a driver that is
// too old, a program without code for the device, no memory; and how it keeps its choices
#include <spectral/core/host_copy.hpp>
#include <spectral/core/recording.hpp>
#include <spectral/layers/pass.hpp>
#include <spectral/ops/dct.hpp>
#include <spectral/ops/linear.hpp>
#include <spectral/ops/spectral_filter.hpp>
#include <support/operator_test.hpp>

namespace spectral::test {

namespace {
// until its scope ends, the machine that programs find
struct machine_like {
    host_machine before = machine();
    explicit machine_like(const host_machine& m) { machine() = m; }
    ~machine_like() { machine() = before; }
};
}  // namespace

TEST_CASE("cuda executor: a machine that cannot run the program gets a sentence", "[cuda]") {
    {
        const machine_like none({.devices = 0});
        check_throws([] { cuda::executor(); }, {"no CUDA device was found", "use --executor cpu"});
    }
    {
        const machine_like none({.devices = 0, .driver = 0});
        check_throws([] { cuda::executor(); }, {"no CUDA device was found", "no driver is installed"});
    }
    {
        const machine_like old({.driver = 12040});
        check_throws([] { cuda::executor(); }, {"the driver is too old", "supports CUDA 12.4", "built with 13.0"});
    }
    {
        const machine_like other({.has_code = false});
        check_throws([] { cuda::executor(); }, {"holds no code for host (sm_90)", "-DCMAKE_CUDA_ARCHITECTURES=90"});
    }
    check_throws([] { cuda::executor({.device = 2}); }, {"there is no device 2", "this machine has 1"});
}

TEST_CASE("cuda executor: out of memory names the sizes and leaves everything as it was", "[cuda]") {
    cuda::executor ex;
    const tensor<cuda::executor, float, 2> x(ex, {2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6}),
        w(ex, {1, 3}, std::vector<float>{1, 10, 100});
    tensor<cuda::executor, float, 2> y(ex, {2, 1});
    const auto product = [&] {
        y.assign(std::vector<float>(2));  // of before: only a product that is made gives what is wanted
        arena_scope step(ex);
        linear_forward<cuda::executor, float>(ex, x.view(), view<const float, 2>(w.view()), {}, y.view());
        return y.to_host();
    };
    const auto want = product();
    {
        const machine_like full({.free_bytes = 1 << 20});
        check_throws([&] { tensor<cuda::executor, float>(ex, {1 << 20}); },
                     {"out of memory on host", "4194304 bytes asked for", "1048576 of 1048576 free", "smaller batch"});
        arena_scope step(ex);
        check_throws([&] { ex.memory().vector<double>(1 << 24); }, {"out of memory on host"});
        CHECK(ex.memory().vector<float>(16).size() == 16);
    }
    CHECK(x.to_host() == std::vector<float>{1, 2, 3, 4, 5, 6});
    CHECK(product() == want);
}

TEST_CASE("cuda executor: a plan without memory is named by its size, and made once there is some", "[cuda]") {
    cuda::executor ex;
    const auto transformed = [&](index width, std::size_t free_bytes) {
        const std::vector<float> ones(static_cast<std::size_t>(2 * width), 1);
        const tensor<cuda::executor, float, 2> x(ex, {2, width}, ones);
        tensor<cuda::executor, float, 2> X(ex, {2, width});
        const machine_like some({.free_bytes = free_bytes});
        arena_scope step(ex);
        dct_forward<cuda::executor, float>(ex, x.view(), dct_norm::ortho, X.view());
        return X.to_host()[0];
    };
    transformed(101, 1 << 20);  // what else a transform works in is there from now on
    check_throws([&] { transformed(97, 64); },
                 {"cufftMakePlanMany of 2 rows of 97 values", "CUFFT_ALLOC_FAILED", "64 of 64 bytes free"});
    CHECK(transformed(97, 1 << 20) == Approx(std::sqrt(97.0)));
    CHECK(transformed(101, 64) == Approx(std::sqrt(101.0)));
}

TEST_CASE("cuda executor: the arena grows by what is asked for where it cannot double", "[cuda]") {
    cuda::executor ex;
    arena_scope step(ex);
    ex.memory().vector<std::byte>(4 << 20);
    const machine_like nearly_full({.free_bytes = 3 << 20});
    CHECK(ex.memory().vector<std::byte>(2 << 20).size() == 2 << 20);
    CHECK(ex.memory().capacity() < 7 << 20);
    check_throws([&] { ex.memory().vector<std::byte>(5 << 20); }, {"out of memory on host", "5242880 bytes asked for"});
}

// Whichever of a cache's five allocations fails, the next prefill finds a state that it can use.
TEST_CASE("cuda executor: no memory for a cache of keys and values", "[cuda]") {
    cuda::executor ex;
    for (int made = 0; made < 5; ++made) {
        decode_state<cuda::executor, float> state;
        state.layers.resize(1);
        state.capacity = 4;
        const auto prefill = [&] { state.make_room(ex, 0, {1, 1}, 8); };
        {
            const machine_like full({.allocations_left = made});
            check_throws(prefill, {"out of memory on host", "bytes asked for"});
        }
        prefill();
        CHECK(state.layers[0].k.size() == 8 * 8);
        CHECK(state.layers[0].v.size() == 8 * 8);
        CHECK(to_host(ex, state.layers[0].end.view()) == std::vector<row_index>{0, 4});
    }
}

TEST_CASE("cuda executor: values on their way to the host", "[cuda]") {
    cuda::executor ex;
    const tensor<cuda::executor, double> few(ex, {2}, std::vector<double>{1, 2}),
        many(ex, {5000}, std::vector<double>(5000, 3));
    host_copy<cuda::executor, double> copy;
    CHECK(copy.finish().empty());
    copy.start(ex, few.view());
    CHECK(copy.finish()[1] == 2);
    host_copy<cuda::executor, double> moved = std::move(copy);
    CHECK(moved.finish()[0] == 1);
    const auto before = ex.allocations();
    moved.start(ex, many.view());
    CHECK(moved.finish().size() == 5000);
    CHECK(ex.allocations() == before + 1);  // pinned memory counts
    moved.start(ex, many.view());
    CHECK(ex.allocations() == before + 1);
    CHECK(moved.finish()[4999] == 3);
    repeated_work<cuda::executor> work;
    const auto copies = [&] { moved.start(ex, few.view()); };
    work.run(ex, copies);
    check_throws([&] { work.run(ex, copies); }, {"cuda", "cannot be recorded"});
    CHECK(moved.finish()[0] == 1);
}

TEST_CASE("cuda executor: choices are written out, read back and followed", "[cuda]") {
    // 97 is transformed by cuFFT, or beyond 4096 rows by products with the matrix
    const index n = 4100, d = 97;
    const auto filtered = [&](cuda::executor& ex) {
        tensor<cuda::executor, double, 2> x(ex, {n, d}, normals(n * d, 1)), y(ex, {n, d});
        tensor<cuda::executor, double> w(ex, {d}, normals(d, 2));
        arena_scope step(ex);
        spectral_filter_forward<cuda::executor, double>(ex, x.view(), w.view(), dct_norm::ortho, y.view());
        return y.to_host();
    };
    const std::string name = "dct 97 double, up to 8192 rows";
    cuda::executor first;
    const auto by_rule = filtered(first);
    auto chosen = cuda::products_chosen(first);
    REQUIRE(chosen.count(name) == 1);
    CHECK(chosen[name] == "matrix");
    CHECK(chosen.size() == 3);  // and its two products

    cuda::executor second;
    cuda::choose_products(second, chosen);
    CHECK(filtered(second) == by_rule);
    CHECK(cuda::products_chosen(second) == chosen);

    chosen[name] = "cuFFT";
    cuda::executor third;
    cuda::choose_products(third, chosen);
    const auto by_cufft = filtered(third);
    CHECK(by_cufft != by_rule);  // by rounding
    double apart = 0;
    for (std::size_t i = 0; i < by_rule.size(); ++i) apart = std::max(apart, std::abs(by_cufft[i] - by_rule[i]));
    CHECK(apart < 1e-13);
    CHECK(cuda::products_chosen(third) == chosen);

    cuda::executor timed({.tune = true});
    const auto by_trial = filtered(timed);
    const auto tried = cuda::products_chosen(timed);
    REQUIRE(tried.count(name) == 1);
    CHECK(by_trial == (tried.at(name) == "matrix" ? by_rule : by_cufft));

    check_throws(
        [&] {
            cuda::choose_products(timed, {{name, "both"}});
        },
        {"plans", name, "expected \"matrix\" or \"cuFFT\", found \"both\""});
    check_throws([&] { cuda::choose_products(timed, {{"1 2", "zz"}}); }, {"plans", "1 2", "hexadecimal", "zz"});
}

}  // namespace spectral::test
