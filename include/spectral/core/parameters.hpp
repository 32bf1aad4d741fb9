// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/parameters.hpp: named parameters in one contiguous block
//
// A layer declares `parameter<T>` members and visits them by name; a parameter_store lays all parameters of a model out
// in one block of values and one of gradients and points the members into them. So the optimizer, the gradient norm,
// the checkpoint and the count are one loop each. A frozen parameter may be kept as bfloat16 instead: it then has no
// place in the block, but a view of a mapped file or of memory of its own.
// A model of bfloat16 trains float masters: layers read `value`, a rounded copy, and gradients are float. In any other
// model the value is its own master.
#pragma once
#include <spectral/core/random.hpp>
#include <spectral/core/tensor.hpp>
#include <spectral/core/weight_view.hpp>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>
#include <thread>

namespace spectral {

// How a parameter starts: normal with standard deviation `scale`, or constant `scale`.
struct initializer {
    enum class kind { constant, normal, uniform } how = kind::normal;
    double scale = 0.02;

    static initializer zeros() { return {kind::constant, 0}; }
    static initializer ones() { return {kind::constant, 1}; }
    static initializer constant(double v) { return {kind::constant, v}; }
    static initializer normal(double deviation) { return {kind::normal, deviation}; }
    static initializer uniform(double bound) { return {kind::uniform, bound}; }  // in [-bound, bound)
};

// value and grad are (rows, width) views; a vector has rows 1; `shape` is the tensor's shape in files.
template <class T>
struct parameter {
    std::vector<index> shape;
    initializer init;
    matrix_view<T> value;
    matrix_view<statistic<T>> grad;  // empty in a store without gradients and for frozen parameters
    matrix_view<statistic<T>> master;  // what the optimizer steps; empty for frozen parameters
    bool trainable = true;
    double rate = 1;  // its learning rate as a multiple of the run's
    bool written_first = false;  // backward asks write_mode() before each part of grad: it need not be cleared
    bool narrow = false;  // kept as bfloat16, in `stored`: value stays empty
    matrix_view<const bfloat16> stored;  // (rows, width) once loaded or initialised

    parameter() = default;
    parameter(std::vector<index> shape_, initializer init_) : shape(std::move(shape_)), init(init_) {
        check(shape.size() == 1 || shape.size() == 2, "parameter", "rank must be 1 or 2, found ", shape.size());
    }
    index size() const { return shape.empty() ? 0 : shape.size() == 1 ? shape[0] : shape[0] * shape[1]; }
    bool used() const { return !shape.empty(); }

    weight_view<T> matrix() const { return narrow ? weight_view<T>(stored) : weight_view<T>(value); }
    view<const T, 1> vector() const { return {value.data, {value.size()}}; }
    view<statistic<T>, 1> grad_vector() const { return {grad.data, {grad.size()}}; }

    // ---- gradients that hold nothing yet (parameter_store::forget_gradients) ----
    // How backward brings in the gradient of the units [first, first + count) (rows, or values of a vector): it writes
    // what is asked for the first time, and adds later.
    write write_mode(index first, index count) {
        if (!forgotten_) return write::accumulate;
        for (index i = 0; i < parts_; ++i) {
            const auto [begin, end] = part_[static_cast<std::size_t>(i)];
            if (begin == first && end == first + count) return write::accumulate;
            check(first >= end || first + count <= begin, "parameter", "parts of a gradient overlap: [", begin, ", ",
                  end, ") and [", first, ", ", first + count, ")");
        }
        check(parts_ < most_parts, "parameter", "a gradient has at most ", most_parts, " parts");
        part_[static_cast<std::size_t>(parts_++)] = {first, first + count};
        return write::overwrite;
    }
    void forget_gradient() { forgotten_ = true, parts_ = 0; }
    // f(first, count) for the units that nobody has written since; grad is then whole
    template <class F>
    void settle_gradient(F&& f) {
        if (!forgotten_) return;
        forgotten_ = false;
        std::sort(part_.begin(), part_.begin() + parts_);
        index at = 0;
        for (index i = 0; i <= parts_; ++i) {
            const auto [begin, end] =
                i < parts_ ? part_[static_cast<std::size_t>(i)] : std::pair{shape.front(), shape.front()};
            if (begin > at) f(at, begin - at);
            at = end;
        }
    }

private:
    static constexpr index most_parts = 8;
    bool forgotten_ = false;
    std::array<std::pair<index, index>, most_parts> part_{};
    index parts_ = 0;
};

// Calls f(name, parameter) for every used parameter of a model or layer. A type that holds parameters has
// `template <class F> void visit_parameters(F&& f, const std::string& prefix)`.
template <class Model, class F>
void for_each_parameter(Model& model, F&& f) {
    model.visit_parameters(
        [&](const std::string& name, auto& p) {
            if (p.used()) f(name, p);
        },
        std::string{});
}

// Number of values, without any memory for them.
template <class Model>
index count_parameters(Model& model) {
    index n = 0;
    for_each_parameter(model, [&](const std::string&, auto& p) { n += p.size(); });
    return n;
}

// Whether a parameter_store keeps gradients of its trainable parameters.
enum class gradients { none, trainable };

// Memory of all parameters of a model: one block of trainable values, one of their gradients, one of frozen values.
// The model must outlive it and must not move.
template <executor Exec, class T>
class parameter_store {
    using real = statistic<T>;
    static constexpr bool rounds = !std::is_same_v<T, real>;

public:
    template <class Model>
    parameter_store(Exec& ex, Model& model, gradients g = gradients::trainable) : ex_(&ex) {
        index total = 0, trained = 0;
        for_each_parameter(model, [&](const std::string&, parameter<T>& p) {
            check(!(p.narrow && p.trainable), "parameter_store", "a parameter kept as bfloat16 must be frozen");
            if (!p.narrow) (p.trainable ? trained : total) += padded(p.size());
        });
        frozen_ = tensor<Exec, T>(ex, {total});
        masters_ = tensor<Exec, real>(ex, {trained});
        if constexpr (rounds) rounded_ = tensor<Exec, T>(ex, {trained});
        if (g == gradients::trainable) grads_ = tensor<Exec, real>(ex, {trained});
        index frozen_at = 0, at = 0;
        for_each_parameter(model, [&](const std::string& name, parameter<T>& p) {
            named_.emplace_back(name, &p);
            if (p.narrow) return;
            const index width = p.shape.back(), rows = p.shape.size() == 2 ? p.shape[0] : 1;
            index& next = p.trainable ? at : frozen_at;
            p.value = {(p.trainable ? rounded().data : frozen_.data()) + next, {rows, width}};
            if (p.trainable) p.master = {masters_.data() + next, {rows, width}};
            if (p.trainable && g == gradients::trainable) p.grad = {grads_.data() + next, {rows, width}};
            next += padded(p.size());
        });
    }

    // every value from its initializer, or the trainable ones alone; the same bits on every executor, whatever the
    // order of layers
    void initialize(std::uint64_t seed, bool trainable_alone = false) {
        std::vector<real> host;
        for (auto& [name, p] : named_) {
            if (trainable_alone && !p->trainable) continue;
            host.resize(static_cast<std::size_t>(p->size()));
            const random_stream draw{seed, stream_of(name)};
            const auto fill = [&](std::size_t first, std::size_t last) {
                for (std::size_t i = first; i < last; ++i)
                    host[i] = static_cast<real>(p->init.how == initializer::kind::constant ? p->init.scale
                                                : p->init.how == initializer::kind::normal
                                                    ? p->init.scale * draw.normal(i)
                                                    : p->init.scale * (2 * draw.uniform(i) - 1));
            };
            // every value is a function of its number: large parameters are shared among threads
            const std::size_t each = 1u << 20, parts = std::clamp<std::size_t>(host.size() / each, 1, most_threads());
            {
                std::vector<std::jthread> helpers;
                for (std::size_t k = 1; k < parts; ++k)
                    helpers.emplace_back(fill, host.size() * k / parts, host.size() * (k + 1) / parts);
                fill(0, host.size() / parts);
            }
            assign(*p, host);
        }
    }

    // one parameter's values from the host; a narrow one rounds them
    void assign(parameter<T>& p, std::span<const real> host) {
        check_equal(static_cast<index>(host.size()), p.size(), "parameter_store::assign", "number of values");
        if (p.master.data) ex_->copy_from_host(p.master.data, host.data(), host.size_bytes());
        if constexpr (!rounds)
            if (!p.master.data && !p.narrow) ex_->copy_from_host(p.value.data, host.data(), host.size_bytes());
        if (!rounds && !p.narrow) return;
        std::vector<bfloat16> rounded(host.size());
        for (std::size_t i = 0; i < host.size(); ++i) rounded[i] = bfloat16(static_cast<float>(host[i]));
        assign(p, std::span<const bfloat16>(rounded));
    }
    void assign(parameter<T>& p, std::span<const bfloat16> host) {
        check_equal(static_cast<index>(host.size()), p.size(), "parameter_store::assign", "number of values");
        if constexpr (rounds)
            if (!p.narrow) return ex_->copy_from_host(p.value.data, host.data(), host.size_bytes());
        auto memory = std::make_shared<tensor<Exec, bfloat16>>(*ex_, std::array<index, 1>{p.size()}, host);
        share(p, memory->data(), memory);
    }
    // a narrow parameter's values where they lie: `owner` keeps them there
    void share(parameter<T>& p, const bfloat16* values, std::shared_ptr<const void> owner) {
        check(p.narrow, "parameter_store::share", "the parameter is not kept as bfloat16");
        p.stored = {values, {p.size() / p.shape.back(), p.shape.back()}};
        owners_[&p] = std::move(owner);
    }
    void zero_gradients() {
        clear(0, grads_.size());
        for (auto& [name, p] : named_)
            if (p->grad.data) p->forget_gradient(), p->settle_gradient([](index, index) {});
    }
    // The same without clearing what the next backward pass writes anyway: the weights of linear maps. In between the
    // gradients hold nothing; a model's run settles them, and so does the optimizer.
    void forget_gradients() {
        index begin = 0, end = 0;  // to be cleared: neighbours in one call
        for (auto& [name, p] : named_) {
            if (!p->grad.data) continue;
            if (p->written_first) {
                p->forget_gradient();
                continue;
            }
            const index at = p->grad.data - grads_.data();
            if (at != end) clear(begin, end - begin), begin = at;
            end = at + padded(p->size());
        }
        clear(begin, end - begin);
    }
    // Clears what was forgotten and never written: weights that no token needed.
    void settle_gradients() {
        for (auto& [name, p] : named_)
            if (p->grad.data)
                p->settle_gradient([&, p = p](index first, index count) {
                    const index unit = p->size() / p->shape.front();
                    clear(p->grad.data - grads_.data() + first * unit, count * unit);
                });
    }

    // every trainable parameter, padding included: masters, what layers read, gradients
    vector_view<real> masters() const { return masters_.view(); }
    vector_view<T> rounded() const {
        if constexpr (rounds)
            return rounded_.view();
        else
            return masters_.view();
    }
    vector_view<real> gradients_view() const { return grads_.view(); }
    const std::vector<std::pair<std::string, parameter<T>*>>& named() const { return named_; }

private:
    void clear(index first, index count) {
        if (count > 0) ex_->fill_bytes(grads_.data() + first, 0, static_cast<std::size_t>(count) * sizeof(real));
    }
    static std::size_t most_threads() { return std::max(1u, std::thread::hardware_concurrency()); }
    // each parameter starts on a boundary of 64 bytes or more; the padding is zero and stays zero
    static index padded(index n) {
        constexpr index unit = 32;  // whatever the scalar: one offset for masters, copies, gradients and saved moments
        return (n + unit - 1) / unit * unit;
    }
    Exec* ex_;
    tensor<Exec, real> masters_, grads_;
    tensor<Exec, T> rounded_, frozen_;  // rounded_: of a bfloat16 model
    std::vector<std::pair<std::string, parameter<T>*>> named_;
    std::map<const parameter<T>*, std::shared_ptr<const void>> owners_;  // of narrow parameters' memory
};

// A parameter's values on the host: its master's, or widened where it has none.
template <executor Exec, class T>
std::vector<statistic<T>> to_host(Exec& ex, const parameter<T>& p) {
    if (p.master.data) return to_host(ex, p.master);
    const auto widened = [](const auto& stored) {
        std::vector<statistic<T>> out(stored.size());
        for (std::size_t i = 0; i < out.size(); ++i) out[i] = widen<statistic<T>>(stored[i]);
        return out;
    };
    return p.narrow ? widened(to_host(ex, p.stored)) : widened(to_host(ex, p.value));
}

}  // namespace spectral
