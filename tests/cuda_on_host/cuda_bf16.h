// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cuda_bf16.h: bfloat16 rounding, see cuda_runtime.h
#pragma once
#include <spectral/core/half.hpp>
using __nv_bfloat16 = spectral::bfloat16;
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __nv_bfloat16(v); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
struct __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {__nv_bfloat16(a), __nv_bfloat16(b)}; }
