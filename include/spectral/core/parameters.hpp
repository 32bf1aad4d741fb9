// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/parameters.hpp: named parameters in one contiguous block
//
// A layer declares `parameter<T>` members and visits them by name; a parameter_store lays all parameters of a model out
// in one block of values and one of gradients and points the members into them. So the optimizer, the gradient norm, the
// checkpoint and the count are one loop each.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/core/tensor.hpp>

#include <string>

namespace spectral {

// How a parameter starts: normal with standard deviation `scale`, or constant `scale`.
struct initializer {
    enum class kind { constant, normal, uniform } how = kind::normal;
    double scale = 0.02;

    static initializer zeros() { return {kind::constant, 0}; }
    static initializer ones() { return {kind::constant, 1}; }
    static initializer constant(double v) { return {kind::constant, v}; }
    static initializer normal(double deviation) { return {kind::normal, deviation}; }
    static initializer uniform(double bound) { return {kind::uniform, bound}; }   // in [-bound, bound)
};

// value and grad are (rows, width) views; a vector has rows 1; `shape` is the tensor's shape in files.
template <class T>
struct parameter {
    std::vector<index> shape;
    initializer init;
    matrix_view<T> value, grad;   // grad is empty in a store without gradients and for frozen parameters
    bool trainable = true;
    double rate = 1;              // its learning rate as a multiple of the run's

    parameter() = default;
    parameter(std::vector<index> shape_, initializer init_) : shape(std::move(shape_)), init(init_) {
        check(shape.size() == 1 || shape.size() == 2, "parameter", "rank must be 1 or 2, found ", shape.size());
    }
    index size() const { return shape.empty() ? 0 : shape.size() == 1 ? shape[0] : shape[0] * shape[1]; }
    bool used() const { return !shape.empty(); }

    view<const T, 2> matrix() const { return value; }
    view<const T, 1> vector() const { return {value.data, {value.size()}}; }
    view<T, 1> grad_vector() const { return {grad.data, {grad.size()}}; }
};

// Calls f(name, parameter) for every used parameter of a model or layer. A type that holds parameters has
// `template <class F> void visit_parameters(F&& f, const std::string& prefix)`.
template <class Model, class F>
void for_each_parameter(Model& model, F&& f) {
    model.visit_parameters([&](const std::string& name, auto& p) { if (p.used()) f(name, p); }, std::string{});
}

// Number of values, without any memory for them.
template <class Model>
index count_parameters(Model& model) {
    index n = 0;
    for_each_parameter(model, [&](const std::string&, auto& p) { n += p.size(); });
    return n;
}

enum class gradients { none, trainable };

template <executor Exec, class T>
class parameter_store {
public:
    template <class Model>
    parameter_store(Exec& ex, Model& model, gradients g = gradients::trainable) : ex_(&ex) {
        index total = 0, trained = 0;
        for_each_parameter(model, [&](const std::string&, parameter<T>& p) {
            (p.trainable ? trained : total) += padded(p.size());
        });
        frozen_ = tensor<Exec, T>(ex, {total});
        values_ = tensor<Exec, T>(ex, {trained});
        if (g == gradients::trainable) grads_ = tensor<Exec, T>(ex, {trained});
        index frozen_at = 0, at = 0;
        for_each_parameter(model, [&](const std::string& name, parameter<T>& p) {
            const index width = p.shape.back(), rows = p.shape.size() == 2 ? p.shape[0] : 1;
            index& next = p.trainable ? at : frozen_at;
            p.value = {(p.trainable ? values_ : frozen_).data() + next, {rows, width}};
            if (p.trainable && g == gradients::trainable) p.grad = {grads_.data() + next, {rows, width}};
            next += padded(p.size());
            named_.emplace_back(name, &p);
        });
    }

    // every value from its initializer, or the trainable ones alone; the same bits on every executor, whatever the order
    // of layers
    void initialize(std::uint64_t seed, bool trainable_alone = false) {
        std::vector<T> host;
        for (auto& [name, p] : named_) {
            if (trainable_alone && !p->trainable) continue;
            host.resize(static_cast<std::size_t>(p->size()));
            const random_stream draw{seed, stream_of(name)};
            for (std::size_t i = 0; i < host.size(); ++i)
                host[i] = static_cast<T>(p->init.how == initializer::kind::constant ? p->init.scale
                                         : p->init.how == initializer::kind::normal ? p->init.scale * draw.normal(i)
                                                                                    : p->init.scale * (2 * draw.uniform(i) - 1));
            ex_->copy_from_host(p->value.data, host.data(), host.size() * sizeof(T));
        }
    }
    void zero_gradients() {
        if (grads_.size()) ex_->fill_bytes(grads_.data(), 0, static_cast<std::size_t>(grads_.size()) * sizeof(T));
    }

    vector_view<T> values() const { return values_.view(); }      // every trainable parameter, padding included
    vector_view<T> gradients_view() const { return grads_.view(); }
    const std::vector<std::pair<std::string, parameter<T>*>>& named() const { return named_; }

private:
    // each parameter starts on a 64-byte boundary; the padding is zero and stays zero
    static index padded(index n) {
        constexpr index unit = 64 / static_cast<index>(sizeof(T));
        return (n + unit - 1) / unit * unit;
    }
    Exec* ex_;
    tensor<Exec, T> values_, grads_, frozen_;
    std::vector<std::pair<std::string, parameter<T>*>> named_;
};

}  // namespace spectral
