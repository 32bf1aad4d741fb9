// SPDX-License-Identifier: Apache-2.0
// tests/headers/all_headers.cpp: all headers in one unit, after macros that other people's headers are known to define
#if __has_include(<Eigen/Core>)
#include <Eigen/Core>
#endif
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#endif

#define I macro_of_complex_h
#define major(x) macro_of_sysmacros_h
#define minor(x) macro_of_sysmacros_h
#define Bool macro_of_xlib_h
#define None macro_of_xlib_h
#define Status macro_of_xlib_h
#define Success macro_of_xlib_h
#define TRUE macro_of_many
#define FALSE macro_of_many
#define DEBUG macro_of_many
#define ERROR macro_of_many
#define N_ macro_of_gettext
#define _(x) macro_of_gettext  // NOLINT(bugprone-reserved-identifier): gettext has it
#define likely(x) macro_of_kernels
#define unlikely(x) macro_of_kernels
#define CHECK(x) macro_of_many
#define LOG(x) macro_of_many

#include "all_headers.inc"

int main() {}
