// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/executor_test.cpp: what the CUDA executor says where it cannot work: no device, a driver that is
// too old, a program without code for the device, no memory
#include <spectral/ops/linear.hpp>
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

TEST_CASE("cuda executor: the arena grows by what is asked for where it cannot double", "[cuda]") {
    cuda::executor ex;
    arena_scope step(ex);
    ex.memory().vector<std::byte>(4 << 20);
    const machine_like nearly_full({.free_bytes = 3 << 20});
    CHECK(ex.memory().vector<std::byte>(2 << 20).size() == 2 << 20);
    CHECK(ex.memory().capacity() < 7 << 20);
    check_throws([&] { ex.memory().vector<std::byte>(5 << 20); }, {"out of memory on host", "5242880 bytes asked for"});
}

}  // namespace spectral::test
