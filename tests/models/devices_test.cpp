// SPDX-License-Identifier: Apache-2.0
// tests/models/devices_test.cpp: executors on two devices in one process train as one alone does, to the last bit; where
// there is one device, both are on it
#include "model_test.hpp"

#include <spectral/train/adamw.hpp>

#include <future>

namespace spectral::test::devices_test {

namespace {
template <class Stack>
struct trainee {
    int device;
    cuda::executor ex{{.device = device}};
    task_model<cuda::executor, float, Stack> model;
    adamw<cuda::executor, float> optimizer{ex, model.parameters};
    std::vector<double> losses;

    trainee(int device_, const chiar_config& c) : device(device_), model(ex, c) { randomize(model); }

    void train(const batch& b, int steps) {
        cuda::detail::checked(cudaSetDevice(device), "cudaSetDevice");
        for (int i = 0; i < steps; ++i) {
            model.parameters.zero_gradients();
            losses.push_back(model.run(b, phase::training).loss);
            optimizer.step({.learning_rate = 1e-2}, 1.0);
        }
    }
    std::vector<float> weights() { return to_host(ex, model.parameters.masters()); }
};
}  // namespace

TEST_CASE("models: two devices in one process", "[models][cuda]") {
    int devices = 0;
    cuda::detail::checked(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
    WARN("on devices 0 and " << devices - 1);  // for the report
    const auto c = tiny_config();
    const batch b = language_batch({20, 7, 13}, c.vocab_size, 5);
    const int steps = 4;
    with_chiar_stack<cuda::executor, float>(c, [&]<class Stack>(std::type_identity<Stack>) {
        trainee<Stack> alone(0, c);
        alone.train(b, steps);
        CHECK(alone.losses.back() < alone.losses.front());
        const auto check_same = [&](trainee<Stack>& other, const std::string& about) {
            INFO(about << ", device " << other.device);
            CHECK(other.losses == alone.losses);
            CHECK(other.weights() == alone.weights());
        };
        trainee<Stack> first(0, c), second(devices - 1, c);
        for (int i = 0; i < steps; ++i) first.train(b, 1), second.train(b, 1);
        check_same(first, "in turns");
        check_same(second, "in turns");

        trainee<Stack> one(0, c), other(devices - 1, c);
        auto beside = std::async(std::launch::async, [&] { other.train(b, steps); });
        one.train(b, steps);
        beside.get();
        check_same(one, "in two threads");
        check_same(other, "in two threads");
    });
}

}  // namespace spectral::test::devices_test
