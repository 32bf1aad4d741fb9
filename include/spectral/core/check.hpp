// SPDX-License-Identifier: Apache-2.0
// include/spectral/core/check.hpp: the one exception type, and the checks that throw it
#pragma once
#include <concepts>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace spectral {

// Everything this library throws. `where` names the operator, file or field; what() is one sentence:
//   "linear_forward: width of x: expected 256, found 255"
// Every operator of ops/ throws it where shapes do not fit; what else one checks stands beside it.
class error : public std::runtime_error {
public:
    error(std::string where, const std::string& sentence)
        : std::runtime_error(where + ": " + sentence), where_(std::move(where)) {}
    const std::string& where() const noexcept { return where_; }

private:
    std::string where_;
};

namespace detail {
template <class T>
void put(std::ostream& out, const T& part) {
    if constexpr (std::floating_point<T>) {
        if (part != part) {  // its sign says nothing, and differs between compilers
            out << "nan";
            return;
        }
    }
    out << part;
}
template <class... Parts>
std::string join(const Parts&... parts) {
    std::ostringstream out;
    (put(out, parts), ...);
    return out.str();
}
}  // namespace detail

// Throws error{where, parts...}. The parts are only put together when it throws.
template <class... Parts>
[[noreturn]] void fail(std::string_view where, const Parts&... parts) {
    throw error(std::string(where), detail::join(parts...));
}

// if (!condition) fail(where, parts...): stays on in release builds; use at public entries and on untrusted input.
template <class... Parts>
void check(bool condition, std::string_view where, const Parts&... parts) {
    if (!condition) [[unlikely]]
        fail(where, parts...);
}

// "where: what: expected E, found F"
template <class E, class F>
void check_equal(const F& found, const E& expected, std::string_view where, std::string_view what) {
    if (!(found == expected)) [[unlikely]]
        fail(where, what, ": expected ", expected, ", found ", found);
}

}  // namespace spectral
