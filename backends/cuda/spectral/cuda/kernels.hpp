// SPDX-License-Identifier: Apache-2.0
// backends/cuda/spectral/cuda/kernels.hpp: all kernels of the cuda executor, and their list
//
// With the list, a program of several CUDA files compiles each kernel once rather than in every file that calls it.
// Where spectral is built with the program (add_subdirectory, FetchContent):
//
//   target_link_libraries(app PRIVATE spectral::cuda_kernels)   in place of spectral::cuda
//
// That pays from four files or so (docs/08-why.md). Elsewhere: files define SPECTRAL_CUDA_EXTERN_KERNELS before they
// include <spectral/cuda.hpp>, and others, as backends/cuda/kernels/float.cu does, say in namespace spectral::cuda
// SPECTRAL_CUDA_KERNELS(template, T) for float, whatever the program computes in, and for its models' other scalars.
// A kernel that is not listed (of no scalar, or with a weight of another type than the model's) is in every file.
#pragma once
#include <spectral/cuda/activation.hpp>
#include <spectral/cuda/attention.hpp>
#include <spectral/cuda/cross_entropy.hpp>
#include <spectral/cuda/dct.hpp>
#include <spectral/cuda/decision.hpp>
#include <spectral/cuda/dropout.hpp>
#include <spectral/cuda/elementwise.hpp>
#include <spectral/cuda/embedding.hpp>
#include <spectral/cuda/executor.hpp>
#include <spectral/cuda/few_rows.hpp>
#include <spectral/cuda/gate.hpp>
#include <spectral/cuda/kv_cache.hpp>
#include <spectral/cuda/linear.hpp>
#include <spectral/cuda/next_token.hpp>
#include <spectral/cuda/norm.hpp>
#include <spectral/cuda/optimizer.hpp>
#include <spectral/cuda/partition.hpp>
#include <spectral/cuda/pool.hpp>
#include <spectral/cuda/random_features.hpp>
#include <spectral/cuda/rotary.hpp>
#include <spectral/cuda/row_scale.hpp>
#include <spectral/cuda/spectral_entropy.hpp>
#include <spectral/cuda/spectral_filter.hpp>
#include <spectral/cuda/spectral_route_mix.hpp>

// how: template, to compile it here, or extern template, which says that it is compiled elsewhere
#define SPECTRAL_CUDA_INSTANTIATE(how, T, name) how decltype(name<T>) name<T>;

// In namespace spectral::cuda. T: float, double or bfloat16. The last kernels have an overload for a weight of another
// type, so their arguments are spelled out.
// clang-format off
#define SPECTRAL_CUDA_KERNELS(how, T)                                                                                  \
    SPECTRAL_CUDA_INSTANTIATE(how, T, detail::attributes_of_kernels)                                                   \
    SPECTRAL_CUDA_INSTANTIATE(how, T, gelu_forward_kernel)                                                             \
    SPECTRAL_CUDA_INSTANTIATE(how, T, gelu_backward_kernel)                                                            \
    SPECTRAL_CUDA_INSTANTIATE(how, T, silu_gate_forward_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, T, silu_gate_backward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, attention_forward_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, T, attention_backward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, cross_entropy_kernel)                                                            \
    SPECTRAL_CUDA_INSTANTIATE(how, T, dct_kernel)                                                                      \
    SPECTRAL_CUDA_INSTANTIATE(how, T, idct_kernel)                                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, argmax_rows_kernel)                                                              \
    SPECTRAL_CUDA_INSTANTIATE(how, T, pick_columns_forward_kernel)                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, pick_columns_backward_kernel)                                                    \
    SPECTRAL_CUDA_INSTANTIATE(how, T, one_hot_rows_kernel)                                                             \
    SPECTRAL_CUDA_INSTANTIATE(how, T, threshold_rows_kernel)                                                           \
    SPECTRAL_CUDA_INSTANTIATE(how, T, dropout_kernel)                                                                  \
    SPECTRAL_CUDA_INSTANTIATE(how, T, add_kernel)                                                                      \
    SPECTRAL_CUDA_INSTANTIATE(how, T, copy_kernel)                                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, add_constant_kernel)                                                             \
    SPECTRAL_CUDA_INSTANTIATE(how, T, permute_columns_kernel)                                                          \
    SPECTRAL_CUDA_INSTANTIATE(how, T, embedding_backward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, attention_half_kernel)                                                           \
    SPECTRAL_CUDA_INSTANTIATE(how, T, feed_forward_half_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, T, head_kernel)                                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, block_halves_kernel)                                                             \
    SPECTRAL_CUDA_INSTANTIATE(how, T, token_gate_forward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, token_gate_backward_kernel)                                                      \
    SPECTRAL_CUDA_INSTANTIATE(how, T, sigmoid_gate_forward_kernel)                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, sigmoid_gate_backward_kernel)                                                    \
    SPECTRAL_CUDA_INSTANTIATE(how, T, blend_forward_kernel)                                                            \
    SPECTRAL_CUDA_INSTANTIATE(how, T, blend_backward_kernel)                                                           \
    SPECTRAL_CUDA_INSTANTIATE(how, T, kv_append_kernel)                                                                \
    SPECTRAL_CUDA_INSTANTIATE(how, T, linear_backward_weight_kernel)                                                   \
    SPECTRAL_CUDA_INSTANTIATE(how, T, choose_tokens_kernel)                                                            \
    SPECTRAL_CUDA_INSTANTIATE(how, T, draw_tokens_kernel)                                                              \
    SPECTRAL_CUDA_INSTANTIATE(how, T, layer_norm_forward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, layer_norm_backward_kernel)                                                      \
    SPECTRAL_CUDA_INSTANTIATE(how, T, add_layer_norm_forward_kernel)                                                   \
    SPECTRAL_CUDA_INSTANTIATE(how, T, rms_norm_forward_kernel)                                                         \
    SPECTRAL_CUDA_INSTANTIATE(how, T, rms_norm_backward_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, T, gather_rows_kernel)                                                              \
    SPECTRAL_CUDA_INSTANTIATE(how, T, scatter_rows_kernel)                                                             \
    SPECTRAL_CUDA_INSTANTIATE(how, T, copy_rows_kernel)                                                                \
    SPECTRAL_CUDA_INSTANTIATE(how, T, mean_pool_forward_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, T, mean_pool_backward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, T, random_features_forward_kernel)                                                  \
    SPECTRAL_CUDA_INSTANTIATE(how, T, random_features_backward_kernel)                                                 \
    SPECTRAL_CUDA_INSTANTIATE(how, T, rotary_kernel)                                                                   \
    SPECTRAL_CUDA_INSTANTIATE(how, T, scale_rows_kernel)                                                               \
    SPECTRAL_CUDA_INSTANTIATE(how, T, row_dot_kernel)                                                                  \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_entropy_forward_kernel)                                                 \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_entropy_backward_kernel)                                                \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_filter_forward_kernel)                                                  \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_filter_backward_kernel)                                                 \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_mix_forward_kernel)                                                     \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_mix_backward_kernel)                                                    \
    SPECTRAL_CUDA_INSTANTIATE(how, T, spectral_route_mix_forward_kernel)                                               \
    how void linear_forward_kernel<T>(executor&, const_matrix<T>, const_matrix<T>, const_vector<T>, matrix_view<T>,    \
                                      const_matrix<T>, double);                                                        \
    how void linear_backward_input_kernel<T>(executor&, const_matrix<T>, const_matrix<T>, matrix_view<T>, write,       \
                                             double);                                                                  \
    how void linear_cross_entropy_kernel<T>(executor&, view<const T, 2>, const_matrix<T>, const_vector<row_index>,     \
                                            vector_view<statistic<T>>, double, out_matrix<T>,                          \
                                            out_matrix<statistic<T>>);                                                 \
    how void embedding_forward_kernel<T>(executor&, const_vector<row_index>, const_matrix<T>, matrix_view<T>, write);

// master weights, gates and the optimizer, which have no bfloat16. A: float or double
#define SPECTRAL_CUDA_STATISTIC_KERNELS(how, A)                                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, A, hard_gate_forward_kernel)                                                        \
    SPECTRAL_CUDA_INSTANTIATE(how, A, hard_gate_backward_kernel)                                                       \
    SPECTRAL_CUDA_INSTANTIATE(how, A, sum_of_squares_kernel)                                                           \
    SPECTRAL_CUDA_INSTANTIATE(how, A, adamw_step_kernel)
// clang-format on

#ifdef SPECTRAL_CUDA_EXTERN_KERNELS
namespace spectral::cuda {
SPECTRAL_CUDA_KERNELS(extern template, float)
SPECTRAL_CUDA_KERNELS(extern template, double)
SPECTRAL_CUDA_KERNELS(extern template, bfloat16)
SPECTRAL_CUDA_STATISTIC_KERNELS(extern template, float)
SPECTRAL_CUDA_STATISTIC_KERNELS(extern template, double)
}  // namespace spectral::cuda
#endif
