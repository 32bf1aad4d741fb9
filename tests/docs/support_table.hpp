// SPDX-License-Identifier: Apache-2.0
// tests/docs/support_table.hpp: which operators an executor has kernels for, asked of the compiler
//
// A row is an operator with its backward pass, where it has one. `has` is false where the executor's namespace has no
// kernel that takes the arguments which ops/ passes. The reference executor has everything but what is `composed` of
// other operators where an executor offers no kernel of its own: where it lacks more, a signature here is old.
#pragma once
#include <spectral/ops/activation.hpp>
#include <spectral/ops/attention.hpp>
#include <spectral/ops/cross_entropy.hpp>
#include <spectral/ops/dct.hpp>
#include <spectral/ops/decision.hpp>
#include <spectral/ops/dropout.hpp>
#include <spectral/ops/elementwise.hpp>
#include <spectral/ops/embedding.hpp>
#include <spectral/ops/few_rows.hpp>
#include <spectral/ops/gate.hpp>
#include <spectral/ops/kv_cache.hpp>
#include <spectral/ops/linear.hpp>
#include <spectral/ops/next_token.hpp>
#include <spectral/ops/norm.hpp>
#include <spectral/ops/optimizer.hpp>
#include <spectral/ops/partition.hpp>
#include <spectral/ops/pool.hpp>
#include <spectral/ops/random_features.hpp>
#include <spectral/ops/rotary.hpp>
#include <spectral/ops/row_scale.hpp>
#include <spectral/ops/spectral_entropy.hpp>
#include <spectral/ops/spectral_filter.hpp>
#include <spectral/ops/spectral_route_mix.hpp>

#include <string>
#include <vector>

namespace spectral::support {

struct row {
    std::string name;
    bool has, composed = false;
};

// The arguments of kernels, by kind: c constant, m matrix, v vector, s of statistic<T>.
template <class T>
struct arguments {
    using S = statistic<T>;
    view<const T, 2> cm;
    view<const T, 1> cv;
    matrix_view<T> m;
    vector_view<T> v;
    view<const S, 2> csm;
    view<const S, 1> csv;
    matrix_view<S> sm;
    vector_view<S> sv;
    view<const row_index, 1> ids;
    vector_view<row_index> op;
    matrix_view<row_index> ops;
    matrix_view<unsigned char> marks;
    sampling_options how;
    vector_view<double> d;
    std::span<const double> doubles;
    row_map map;
    selection rows;
    write mode;
    random_stream draw;
    hard_gate gate;
    view<double, 1> slope;
    view<const double, 1> known_slope;
    dct_scale scale;
    pool_scope scope;
    rotation direction;
    attention_options attention;
    adamw_options adamw;
    clip_by_norm clip;
    vector_view<bfloat16> rounded;
    kv_cache<T> cache;
    norm_statistics<T> stats;
    bias_gradient<T> bias;
    attention_half<T> attention_part;
    feed_forward_half<T> feed_forward_part;
    std::span<const block_half<T>> halves;
    weight_view<T> weight;
    double x;
    index n;
};

#define SPECTRAL_HAS(...) \
    requires(Exec & ex, arguments<T> & a) { __VA_ARGS__; }

template <class Exec, class T>
std::vector<row> rows() {
    return {
        {"dct, idct", SPECTRAL_HAS(dct_kernel(ex, a.cm, a.scale, a.m); idct_kernel(ex, a.cm, a.scale, a.m))},
        {"spectral_filter", SPECTRAL_HAS(spectral_filter_forward_kernel(ex, a.cm, a.cv, a.x, a.m);
                                         spectral_filter_backward_kernel(ex, a.cm, a.cm, a.cv, a.x, a.m, a.sv))},
        {"spectral_mix",
         SPECTRAL_HAS(
             spectral_mix_forward_kernel(ex, a.cm, a.rows, a.cv, a.x, a.cv, a.cv, a.x, a.m, a.stats);
             spectral_mix_backward_kernel(ex, a.cm, a.cm, a.rows, a.cv, a.x, a.cv, a.stats, a.m, a.sv, a.sv, a.sv))},
        {"spectral_route_mix",
         SPECTRAL_HAS(spectral_route_mix_forward_kernel(ex, a.cm, a.scale, a.doubles, a.sv, a.op, a.cv, a.x, a.cv, a.cv,
                                                        a.x, a.m, a.stats)),
         true},
        {"spectral_entropy", SPECTRAL_HAS(spectral_entropy_forward_kernel(ex, a.cm, a.scale, a.sv);
                                          spectral_entropy_backward_kernel(ex, a.csv, a.cm, a.scale, a.m))},
        {"attention", SPECTRAL_HAS(attention_forward_kernel(ex, a.cm, a.cm, a.cm, a.map, a.map, a.attention, a.m, a.sm);
                                   attention_backward_kernel(ex, a.cm, a.cm, a.cm, a.cm, a.cm, a.csm, a.map, a.map,
                                                             a.attention, a.csm, a.m, a.m, a.m))},
        {"rotary", SPECTRAL_HAS(rotary_kernel(ex, a.m, a.ids, a.csm, a.direction))},
        {"kv_append", SPECTRAL_HAS(kv_append_kernel(ex, a.cm, a.cm, a.map, a.cache))},
        {"linear", SPECTRAL_HAS(linear_forward_kernel(ex, a.cm, a.cm, a.cv, a.m, a.cm, a.x);
                                linear_backward_input_kernel(ex, a.cm, a.cm, a.m, a.mode, a.x);
                                linear_backward_weight_kernel(ex, a.cm, a.cm, a.sm, a.sv, a.mode))},
        {"embedding", SPECTRAL_HAS(embedding_forward_kernel(ex, a.ids, a.cm, a.m, a.mode);
                                   embedding_backward_kernel(ex, a.ids, a.cm, a.sm))},
        {"layer_norm, add_layer_norm",
         SPECTRAL_HAS(layer_norm_forward_kernel(ex, a.cm, a.cv, a.cv, a.x, a.m, a.sv, a.sv);
                      layer_norm_backward_kernel(ex, a.cm, a.cm, a.cv, a.csv, a.csv, a.m, a.sv, a.sv, a.mode, a.bias);
                      add_layer_norm_forward_kernel(ex, a.cm, a.cm, a.cv, a.cv, a.x, a.m, a.m, a.sv, a.sv))},
        {"rms_norm", SPECTRAL_HAS(rms_norm_forward_kernel(ex, a.cm, a.cv, a.x, a.m, a.sv);
                                  rms_norm_backward_kernel(ex, a.cm, a.cm, a.cv, a.csv, a.m, a.sv, a.cm))},
        {"gelu", SPECTRAL_HAS(gelu_forward_kernel(ex, a.cm, a.m); gelu_backward_kernel(ex, a.cm, a.cm, a.m, a.bias))},
        {"silu_gate", SPECTRAL_HAS(silu_gate_forward_kernel(ex, a.cm, a.cm, a.m);
                                   silu_gate_backward_kernel(ex, a.cm, a.cm, a.cm, a.m, a.m))},
        {"cross_entropy", SPECTRAL_HAS(cross_entropy_kernel(ex, a.cm, a.ids, a.sv, a.x, a.m))},
        {"linear_cross_entropy",
         SPECTRAL_HAS(linear_cross_entropy_kernel(ex, a.cm, a.cm, a.ids, a.sv, a.x, a.m, a.sm))},
        {"token_gate",
         SPECTRAL_HAS(token_gate_forward_kernel(ex, a.cm, a.csv, a.cm, a.cv, a.sm);
                      token_gate_backward_kernel(ex, a.csm, a.csm, a.cm, a.csv, a.cm, a.m, a.sv, a.sm, a.sv))},
        {"sigmoid_gate", SPECTRAL_HAS(sigmoid_gate_forward_kernel(ex, a.cm, a.cm, a.cv, a.sv);
                                      sigmoid_gate_backward_kernel(ex, a.csv, a.csv, a.cm, a.cm, a.m, a.sm, a.sv))},
        {"hard_gate", SPECTRAL_HAS(hard_gate_forward_kernel(ex, a.csv, a.gate, a.sv, a.slope);
                                   hard_gate_backward_kernel(ex, a.csv, a.known_slope, a.known_slope, a.sv))},
        {"blend", SPECTRAL_HAS(blend_forward_kernel(ex, a.cm, a.cm, a.csv, a.map, a.scope, a.m);
                               blend_backward_kernel(ex, a.cm, a.cm, a.cm, a.csv, a.map, a.scope, a.m, a.m, a.sv))},
        {"scale_rows, row_dot",
         SPECTRAL_HAS(scale_rows_kernel(ex, a.cm, a.csm, a.m, a.mode); row_dot_kernel(ex, a.cm, a.cm, a.sm))},
        {"argmax_rows, pick_columns, one_hot_rows",
         SPECTRAL_HAS(argmax_rows_kernel(ex, a.sm, a.op); pick_columns_forward_kernel(ex, a.csm, a.ids, a.sm);
                      pick_columns_backward_kernel(ex, a.csm, a.ids, a.sm); one_hot_rows_kernel(ex, a.ids, a.sm))},
        {"threshold_rows, random_rows", SPECTRAL_HAS(threshold_rows_kernel(ex, a.sv, a.doubles, a.op);
                                                     random_rows_kernel(ex, a.ids, a.draw, a.x, a.op))},
        {"mean_pool", SPECTRAL_HAS(mean_pool_forward_kernel(ex, a.cm, a.map, a.scope, a.m, a.sm);
                                   mean_pool_backward_kernel(ex, a.cm, a.map, a.scope, a.m))},
        {"partition, select_rows", SPECTRAL_HAS(partition_kernel(ex, a.ids, a.ops, a.op);
                                                select_rows_kernel(ex, a.map, a.rows, a.op, a.op, a.op))},
        {"gather_rows, scatter_rows, copy_rows",
         SPECTRAL_HAS(gather_rows_kernel(ex, a.cm, a.rows, a.m); scatter_rows_kernel(ex, a.cm, a.rows, a.m, a.mode);
                      copy_rows_kernel(ex, a.cm, a.rows, a.m))},
        {"random_features", SPECTRAL_HAS(random_features_forward_kernel(ex, a.cm, a.cm, a.m);
                                         random_features_backward_kernel(ex, a.m, a.cm, a.cm, a.m))},
        {"dropout", SPECTRAL_HAS(dropout_kernel(ex, a.cm, a.x, a.draw, a.m))},
        {"add, copy, add_constant, permute_columns",
         SPECTRAL_HAS(add_kernel(ex, a.cm, a.x, a.m); copy_kernel(ex, a.cm, a.m); add_constant_kernel(ex, a.x, a.m);
                      permute_columns_kernel(ex, a.cm, a.ids, a.m))},
        {"choose_tokens, advance_rows",
         SPECTRAL_HAS(choose_tokens_kernel(ex, a.cm, a.n, a.ids, a.ids, a.op, a.ops);
                      draw_tokens_kernel(ex, a.cm, a.n, a.ids, a.ids, a.how, a.marks, a.op, a.ops);
                      advance_rows_kernel(ex, a.op))},
        {"attention_half, feed_forward_half, head, block_halves (few rows)",
         SPECTRAL_HAS(attention_half_kernel(ex, a.cm, a.attention_part, a.map, a.cache, a.m);
                      feed_forward_half_kernel(ex, a.cm, a.feed_forward_part, a.m);
                      head_kernel(ex, a.cm, a.cv, a.x, a.weight, a.m);
                      block_halves_kernel(ex, a.cm, a.halves, a.map, a.m)),
         true},
        {"adamw_step, sum_of_squares",
         SPECTRAL_HAS(adamw_step_kernel(ex, a.sv, a.csv, a.sv, a.sv, a.adamw, a.n, a.clip, a.rounded);
                      sum_of_squares_kernel(ex, a.sv, a.d))},
    };
}
#undef SPECTRAL_HAS

// of the cuda executor: compiled apart, on the CUDA runtime of tests/cuda_on_host
std::vector<row> cuda_rows(const std::string& scalar);

}  // namespace spectral::support
