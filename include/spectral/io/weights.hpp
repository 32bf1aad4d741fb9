// SPDX-License-Identifier: Apache-2.0
// include/spectral/io/weights.hpp: a model's parameters from and to safetensors
//
// Loading is strict: every mismatch of the file is listed in one error before any value is copied; a value that is NaN
// or infinite is an error. Values of any floating type are converted to the model's scalar. A parameter kept as
// bfloat16 shares the mapped file where that holds BF16 and the executor can read it: nothing is copied, and pages are
// read when a kernel touches them.
#pragma once
#include <spectral/core/parameters.hpp>
#include <spectral/io/safetensors.hpp>

#include <cmath>
#include <functional>
#include <limits>

namespace spectral {

namespace detail {
// tensors that checkpoints carry and a model may do without: those that follow from others, and the MetaRouter where
// the configuration fixes its gate or leaves it out. Nothing in a PEFT adapter's file follows from the rest.
inline bool redundant_tensor(std::string_view name) {
    if (name.starts_with("base_model.")) return false;
    return name.ends_with("lm_head.weight") || name.find("rope.") != std::string_view::npos ||
           name.find("meta_router.") != std::string_view::npos;
}
// state that a checkpoint of another routing mode lacks
inline bool optional_tensor(std::string_view name) { return name.ends_with("router.multiplier"); }

// The first value that is NaN or infinite, or -1. Blocks are counted without a branch, so that a compiler makes vectors
// of it.
template <class T>
index first_not_finite(std::span<const T> values) {
    const auto broken = [](T v) {
        if constexpr (std::is_same_v<T, bfloat16>)
            return (v.bits & 0x7f80) == 0x7f80;
        else
            return !(std::abs(v) <= std::numeric_limits<T>::max());
    };
    constexpr std::size_t block = 4096;
    for (std::size_t at = 0; at < values.size(); at += block) {
        const auto part = values.subspan(at, std::min(block, values.size() - at));
        unsigned count = 0;
        for (T v : part) count += broken(v);
        if (count) return static_cast<index>(at) + (std::find_if(part.begin(), part.end(), broken) - part.begin());
    }
    return -1;
}
// Of values just read, or of a mapped file, which is then read here once: what comes from the disk need not come again
// for the first token, and what is in memory costs about as much as that token.
template <class T>
void check_finite(const std::string& file, const std::string& tensor, std::span<const T> values) {
    const index at = first_not_finite(values);
    if (at < 0) return;
    const auto value = static_cast<double>(static_cast<statistic<T>>(values[static_cast<std::size_t>(at)]));
    fail(file, "tensor ", in_quotes(tensor), ": expected finite values, found ", value, " as value ", at,
         ": the model is broken");
}

// Points a narrow parameter into the file, if that is possible.
template <executor Exec, class T, class File>
bool share_weight(Exec&, parameter_store<Exec, T>& store, const File& file, const std::string& stored,
                  parameter<T>& p) {
    if constexpr (requires { requires Exec::reads_host_memory; }) {
        const tensor_entry& entry = file.at(stored);
        const auto owner = file.owner(stored);
        const std::byte* data = entry.data.data();
        if (!owner || entry.dtype != dtype::bf16 || reinterpret_cast<std::uintptr_t>(data) % alignof(bfloat16) != 0)
            return false;
        const auto* values = reinterpret_cast<const bfloat16*>(data);
        check_finite(file.name(), stored, std::span(values, static_cast<std::size_t>(p.size())));
        store.share(p, values, owner);
        return true;
    }
    return false;
}

inline std::string name_list(const std::vector<std::string>& names) {
    std::string out;
    for (std::size_t i = 0; i < names.size(); ++i) out += (i ? ", " : "") + names[i];
    return out;
}
}  // namespace detail

// Which parameters a file holds, and under which names; by default all, under their own.
struct weight_selection {
    std::function<bool(std::string_view)> holds = [](std::string_view) { return true; };
    std::function<std::string(const std::string&)> stored_as = [](const std::string& name) { return name; };
    bool only = true;  // other tensors in the file are an error

    static weight_selection prefixed(const std::string& prefix) {
        weight_selection w;
        w.stored_as = [prefix](const std::string& name) { return prefix + name; };
        w.only = false;
        return w;
    }
};

// Fills the selected parameters of the store. File: a safetensors_file, or several behind one name (weight_files).
template <executor Exec, class T, class File>
void load_weights(Exec& ex, parameter_store<Exec, T>& store, const File& file, const weight_selection& which = {}) {
    std::vector<std::string> missing, unexpected, shapes, integers;
    std::set<std::string> wanted;
    for (const auto& [name, p] : store.named()) {
        if (!which.holds(name)) continue;
        const std::string stored = which.stored_as(name);
        wanted.insert(stored);
        if (!file.contains(stored)) {
            if (!detail::optional_tensor(name)) missing.push_back(stored);
        } else if (file.at(stored).shape != p->shape) {
            shapes.push_back(stored + " (expected " + detail::shape_list(p->shape) + ", found " +
                             detail::shape_list(file.at(stored).shape) + ")");
        } else if (const dtype found = file.at(stored).dtype;
                   found != dtype::f64 && found != dtype::f32 && found != dtype::f16 && found != dtype::bf16) {
            integers.push_back(stored + " (expected F64, F32, F16 or BF16, found " + std::string(dtype_name(found)) +
                               ")");
        }
    }
    if (which.only)
        for (const auto& [name, entry] : file.tensors())
            if (!wanted.count(name) && !detail::redundant_tensor(name)) unexpected.push_back(in_quotes(name));
    std::string problem;
    const auto say = [&](const char* what, const std::vector<std::string>& names) {
        if (!names.empty())
            problem += (problem.empty() ? "" : "; ") + std::to_string(names.size()) + " " + what + ": " +
                       detail::name_list(names);
    };
    say("missing", missing);
    say("unexpected", unexpected);
    say("of another shape", shapes);
    say("of another type", integers);
    check(problem.empty(), file.name(), "the tensors do not fit the model: ", problem);

    std::vector<statistic<T>> host;
    std::vector<bfloat16> narrow;
    for (const auto& [name, p] : store.named()) {
        const std::string stored = which.stored_as(name);
        if (!which.holds(name) || !file.contains(stored)) continue;
        if (p->narrow) {
            if (detail::share_weight(ex, store, file, stored, *p)) continue;
            narrow.resize(static_cast<std::size_t>(p->size()));
            file.read(stored, std::span<bfloat16>(narrow));
            detail::check_finite(file.name(), stored, std::span<const bfloat16>(narrow));
            store.assign(*p, narrow);
            continue;
        }
        host.resize(static_cast<std::size_t>(p->size()));
        file.read(stored, std::span<statistic<T>>(host));
        detail::check_finite(file.name(), stored, std::span<const statistic<T>>(host));
        store.assign(*p, host);
    }
}

// Adds the selected parameters to a writer. It refers to `hold`, which must live until it has written.
template <executor Exec, class T>
void add_weights(Exec& ex, const parameter_store<Exec, T>& store, safetensors_writer& writer,
                 std::vector<std::vector<statistic<T>>>& hold, const weight_selection& which = {}) {
    for (const auto& [name, p] : store.named()) {
        if (!which.holds(name)) continue;
        hold.push_back(to_host(ex, *p));
        writer.add(which.stored_as(name), p->shape, std::span<const statistic<T>>(hold.back()));
    }
}

}  // namespace spectral
