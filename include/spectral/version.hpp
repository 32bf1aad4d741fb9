// SPDX-License-Identifier: Apache-2.0
// include/spectral/version.hpp: the version of this library; the build reads it from here
#pragma once

// For the preprocessor.
#define SPECTRAL_VERSION_MAJOR 0
#define SPECTRAL_VERSION_MINOR 1
#define SPECTRAL_VERSION_PATCH 0

namespace spectral {

// For programs.
inline constexpr int version_major = SPECTRAL_VERSION_MAJOR;
inline constexpr int version_minor = SPECTRAL_VERSION_MINOR;
inline constexpr int version_patch = SPECTRAL_VERSION_PATCH;

}  // namespace spectral
