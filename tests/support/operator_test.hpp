// SPDX-License-Identifier: Apache-2.0
// tests/support/operator_test.hpp: one operator case on any executor, compared with the reference executor in double
//
//   check_against_reference<TestType>("gelu_forward", "(3, 5)", 4, [&](auto& on) {
//       auto y = on.output(3, 5);
//       gelu_forward(on.ex, on.input(3, 5, x), y);
//       return outputs{{"y", on.read(y)}};
//   });
#pragma once
#include <spectral/core/weight_view.hpp>
#include <support/compare.hpp>
#include <support/executors.hpp>
#include <support/random_data.hpp>

#include <array>
#include <tuple>
#include <type_traits>

namespace spectral::test {

// Widths around the edges of vector registers and of FFT factorisations, row counts around those of tiles.
inline const std::vector<index> edge_widths{1, 2, 3, 5, 16, 17, 31, 32, 33, 48, 97, 256, 257};
inline const std::vector<index> edge_rows{0, 1, 2, 3, 7, 17};

// Widths that a backend may transform each in its own way: in registers, in shared memory, by a library (97, 254, 509,
// 1001 and 1028 have prime factors above 7).
inline const std::vector<index> widths_apart =
    SPECTRAL_TEST_SANITIZED
        ? std::vector<index>{64, 97, 254, 509, 1001, 1028, 1152, 5000}  // each way of the cpu
        : std::vector<index>{64,   97,   128,  192,  254,  320,  384,  509,  512,  576,  640,  768,  896,  960, 1001,
                             1024, 1028, 1152, 1280, 1536, 1600, 1920, 2048, 2304, 2560, 3072, 3584, 4096, 5000};

// Every pair of the two, and shapes with work for several threads: rows of different threads, more than one block of
// rows.
inline std::vector<std::array<index, 2>> edge_shapes() {
    std::vector<std::array<index, 2>> out{{300, 257}, {700, 97}, {2100, 17}};
    for (index n : edge_rows)
        for (index c : edge_widths) out.push_back({n, c});
    return out;
}

// f(a, b, ...) for every entry of a list of sizes
template <std::size_t K, class F>
void over(const std::vector<std::array<index, K>>& sizes, F&& f) {
    for (const auto& s : sizes) std::apply(f, s);
}

// What a case returns: values by name. `scale` is the size of what is added up, where it may be larger than the result:
// a long sum that happens to cancel is rounded at the size of its terms.
struct output_value {
    std::string name;
    std::vector<double> values;
    double scale = 1;
};
using outputs = std::vector<output_value>;

template <class... Sizes>
std::string shape(Sizes... sizes) {
    std::string out;
    ((out += (out.empty() ? "(" : ", ") + std::to_string(sizes)), ...);
    return out + ")";
}

// Dense and strided operands, each compared with the oracle; nothing else is written; a second run gives the same bits.
// Scale of the tolerance: the largest expected value, at least 1 (the size of the inputs), and what the case says.
template <class Target, class Case>
void check_against_reference(const std::string& op, const std::string& shape, double terms, Case&& run) {
    using scalar = typename Target::scalar;
    constexpr bool once =  // plain loops have nothing to repeat
        SPECTRAL_TEST_SANITIZED || std::is_same_v<typename Target::executor, oracle::executor>;
    outputs want;
    {
        workbench<oracle> on;
        want = run(on);
    }
    outputs first;
    for (layout l : {layout::dense, layout::columns, layout::dense}) {
        if (once && l == layout::dense && !first.empty()) break;
        workbench<Target> on(l);
        const outputs got = run(on);
        on.check_untouched(op + " on " + Target::executor_name() + ", shape " + shape);
        REQUIRE(got.size() == want.size());
        const std::string about = shape + (l == layout::columns ? " columns of a wider matrix" : "");
        for (std::size_t i = 0; i < got.size(); ++i)
            compare(got[i].values, want[i].values,
                    allowed<scalar>(terms, std::max(want[i].scale, largest(want[i].values))),
                    {op, got[i].name, Target::executor_name(), scalar_name<scalar>, about});
        if (first.empty()) {
            first = got;
        } else if (l == layout::dense) {
            bool same = true;
            for (std::size_t i = 0; i < got.size(); ++i)
                same = same && (got[i].values.empty() || std::memcmp(got[i].values.data(), first[i].values.data(),
                                                                     got[i].values.size() * sizeof(double)) == 0);
            if (!same)
                FAIL_CHECK(op << " on " << Target::executor_name() << ", shape " << shape
                              << ": a second run gave other bits");
        }
    }
}

// A weight for check_against_reference: wide in its first run, the oracle's, and kept as bfloat16 in the others.
class narrow_after_oracle {
public:
    template <class On>
    weight_view<typename On::scalar> operator()(On& on, index n, index c, std::uint64_t seed) {
        const auto values = rounded_normals(n * c, seed);
        if (std::exchange(oracle_, false)) return on.input(n, c, values);
        return on.narrow_input(n, c, values);
    }

private:
    bool oracle_ = true;
};

// f throws spectral::error whose text holds every part: operator, what is wrong, expected, found.
template <class F>
void check_throws(F&& f, const std::vector<std::string>& parts) {
    try {
        f();
        FAIL_CHECK("no error thrown; expected one about " << parts.front());
    } catch (const error& e) {
        const std::string text = e.what();
        for (const auto& part : parts)
            if (text.find(part) == std::string::npos) FAIL_CHECK("error text '" << text << "' lacks '" << part << "'");
        CHECK(true);
    }
}

// Rows other than `bad` equal those of the clean run, and row `bad` holds a NaN. Both are (rows, width), row-major.
inline void check_nan_stays(const std::vector<double>& clean, const std::vector<double>& poisoned, index width,
                            index bad, const subject& s, double bound) {
    std::vector<double> want = clean, got = poisoned;
    bool found = false;
    for (index c = 0; c < width; ++c) {
        const auto i = static_cast<std::size_t>(bad * width + c);
        found = found || std::isnan(got[i]);
        got[i] = want[i] = 0;
    }
    if (!found) FAIL_CHECK(s.op << " on " << s.executor << ", " << s.scalar << ": NaN of row " << bad << " is lost");
    compare(got, want, bound, s);
}

inline std::vector<double> with_nan_row(std::vector<double> x, index width, index row) {
    x[static_cast<std::size_t>(row * width + width / 2)] = nan;
    return x;
}

}  // namespace spectral::test
