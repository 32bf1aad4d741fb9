// SPDX-License-Identifier: Apache-2.0
// tests/cuda_on_host/cuda_bf16.h: bfloat16 rounding, see cuda_runtime.h
#pragma once
#include <spectral/core/half.hpp>
using __nv_bfloat16 = spectral::bfloat16;
inline __nv_bfloat16 __float2bfloat16_rn(float v) { return __nv_bfloat16(v); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
