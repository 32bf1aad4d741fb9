// SPDX-License-Identifier: Apache-2.0
// include/spectral/models/chiar_former.hpp: CHIAR-Former (Chiaroscuro Attention, arXiv:2606.08327)
//
//   token embedding -> MetaRouter( L1: spectral only ) -> L2 .. L(n-1): routed by token -> Ln: attention only ->
//   LayerNorm
//
// v3 as published; v1 and v2 have learned positions and no MetaRouter, v1 mixers have feed-forwards of their own.
#pragma once
#include <spectral/layers/any_router.hpp>
#include <spectral/layers/block.hpp>
#include <spectral/layers/dct_mixer.hpp>
#include <spectral/layers/meta_router.hpp>
#include <spectral/layers/routed.hpp>
#include <spectral/layers/self_attention.hpp>
#include <spectral/layers/token_embedding.hpp>
#include <spectral/models/chiar_parts.hpp>
#include <spectral/models/task_model.hpp>

namespace spectral {

// The published choice of the middle layers. Any router and any operators may stand here; the first layer runs the
// first operator, the last layer the last.
template <class Exec, class T>
using dct_or_attention = routed<Exec, T, any_router<Exec, T>, dct_mixer<Exec, T>, self_attention<Exec, T>>;

namespace detail {
// What layer_variant says against what the model is built of; operators that have no variant are their author's
// concern.
template <class... Operators>
void check_variant(layer_variant said, std::type_identity<std::tuple<Operators...>>) {
    static constexpr std::array<std::string_view, sizeof...(Operators)> built{Operators::name...};
    for (const auto& [variant, name, operators, count] : layer_variants)
        check(!std::equal(built.begin(), built.end(), operators.begin(), operators.begin() + count) || said == variant,
              "chiar_former", "layer_variant: expected ", name, ", which this model is built of, found ",
              layer_variants[static_cast<std::size_t>(said)].name);
}
}  // namespace detail

// Token embedding, layers and final norm: ids (N) to features (N, C). task_model adds the head and the loss.
template <executor Exec, class T, class Middle = dct_or_attention<Exec, T>>
struct chiar_stack {
    using config_type = chiar_config;
    using first_block = block<Exec, T, typename Middle::first_operator>;
    using middle_block = block<Exec, T, Middle>;
    using last_block = block<Exec, T, typename Middle::last_operator>;

    chiar_config config;
    std::shared_ptr<tensor<Exec, statistic<T>, 2>> rotary;
    token_embedding<Exec, T> embedding;
    std::optional<meta_router<Exec, T>> gate;
    first_block first;
    std::vector<middle_block> middle;
    last_block last;
    layer_norm<Exec, T> norm;

    chiar_stack(Exec& ex, const chiar_config& c)
        : config((c.validate(), c)),
          rotary(make_rotary<Exec, T>(ex, c)),
          embedding(c.vocab_size, c.d_model, c.has_positions() ? c.max_seq_len : 0, c.dropout),
          first(at(0), at(0)),
          last(at(c.n_layers - 1), at(c.n_layers - 1)),
          norm(c.d_model) {
        detail::check_variant(c.layer_variant, std::type_identity<decltype(Middle::operators)>{});
        if (c.has_meta_router())
            gate.emplace(c.d_model, meta_options{c.meta_pool, c.meta_gate_value.value_or(1), c.meta_gate_threshold});
        for (index l = 1; l + 1 < c.n_layers; ++l) middle.emplace_back(at(l), ex, at(l), router_at(l));
        adapt_stack(*this, c.adapters);
    }

    struct saved {
        const_vector<row_index> ids;
        layer_inputs<T> inputs;
        typename meta_router<Exec, T>::template saved<first_block> gate;
        typename first_block::saved first;
        std::vector<typename middle_block::saved> middle;
        typename last_block::saved last;
        typename layer_norm<Exec, T>::saved norm;
    };

    // ids (N) -> hidden states h (N, C), which the head reads
    void forward(pass<Exec, T>& p, const_vector<row_index> ids, matrix_view<T> h, saved& s) {
        s.ids = ids;
        s.middle.resize(middle.size());
        activation_chain<Exec, T> x(p, ids.size(), config.d_model, s.inputs);
        x.start([&](auto y) { embedding.forward(p, ids, y); });
        x.apply([&](auto in, auto y) { forward_first(p, in, y, s); });
        for (std::size_t i = 0; i < middle.size(); ++i)
            x.apply([&](auto in, auto y) { middle[i].forward(p, in, y, s.middle[i]); });
        x.apply([&](auto in, auto y) { last.forward(p, in, y, s.last); });
        norm.forward(p, x.value(), h, s.norm);
    }

    // dL_dh (N, C): the same lines, bottom to top
    void backward(pass<Exec, T>& p, const_matrix<T> dL_dh, saved& s) {
        gradient_chain<Exec, T> dL_dx(p, dL_dh.rows(), config.d_model, s.inputs);
        dL_dx.start([&](auto out) { norm.backward(p, dL_dh, out, s.norm); });
        dL_dx.apply([&](auto x, auto y) { last.forward(p, x, y, s.last); },
                    [&](auto dy, auto out) { last.backward(p, dy, out, s.last, write::overwrite); }, write::overwrite);
        for (std::size_t i = middle.size(); i-- > 0;)
            dL_dx.apply([&](auto x, auto y) { middle[i].forward(p, x, y, s.middle[i]); },
                        [&](auto dy, auto out) { middle[i].backward(p, dy, out, s.middle[i], write::overwrite); },
                        write::overwrite);
        dL_dx.apply([&](auto x, auto y) { forward_first(p, x, y, s); },
                    [&](auto dy, auto out) {
                        gate ? gate->backward(p, first, dy, out, s.gate) : first.backward(p, dy, out, s.first);
                    });
        embedding.backward(p, s.ids, dL_dx.value());
    }

    template <class F>
    void visit_parameters(F&& f, const std::string& prefix) {
        embedding.visit_parameters(f, prefix);
        if (gate) gate->visit_parameters(f, prefix + "meta_router.");
        first.visit_parameters(f, prefix + "layers.0.");
        for (std::size_t i = 0; i < middle.size(); ++i)
            middle[i].visit_parameters(f, prefix + "layers." + std::to_string(i + 1) + ".");
        last.visit_parameters(f, prefix + "layers." + std::to_string(config.n_layers - 1) + ".");
        norm.visit_parameters(f, prefix + "norm.");
    }
    index width() const { return config.d_model; }
    index vocabulary() const { return config.vocab_size; }
    index longest() const { return config.max_seq_len; }
    double dropout() const { return config.dropout; }
    std::vector<std::pair<std::string, index>> classes() const { return classes_of(config); }
    parameter<T>& head() { return embedding.tokens; }

    std::vector<char> variant(const decode_state<Exec, T>&) const { return {}; }
    // whether a step of decoding can do without the host: hard gating of L1, keys of routed rows alone and gates that
    // scale what they choose need counts
    bool repeats() const {
        return !(gate && config.meta_gate_threshold > 0) && config.kv_scope == kv_scope::all &&
               config.estimator == estimator::straight_through;
    }

    // room for `capacity` rows in each of `sequences`
    decode_state<Exec, T> make_decode_state(Exec& ex, index sequences, index capacity) {
        decode_state<Exec, T> state;
        state.length.assign(static_cast<std::size_t>(sequences), 0);
        state.layers.resize(static_cast<std::size_t>(config.n_layers));
        if (gate && config.meta_pool == meta_pool::causal)
            state.pool_history = tensor<Exec, statistic<T>, 2>(ex, {sequences, config.d_model});
        const auto cache = [&](auto& op, index layer) {
            if constexpr (requires { op.cache_width(); })
                state.make_cache(ex, layer, sequences, capacity, op.cache_width(), op.cache);
        };
        cache(first.mix, 0);
        for (std::size_t i = 0; i < middle.size(); ++i)
            std::apply([&](auto&... op) { (cache(op, static_cast<index>(i + 1)), ...); }, middle[i].mix.operators);
        cache(last.mix, config.n_layers - 1);
        return state;
    }

private:
    void forward_first(pass<Exec, T>& p, const_matrix<T> x, matrix_view<T> y, saved& s) {
        gate ? gate->forward(p, first, x, y, s.gate) : first.forward(p, x, y, s.first);
    }
    operator_config<Exec, T> at(index layer) const { return make_operator_config<Exec, T>(config, rotary, layer); }
    router_options router_at(index layer) const {
        return {.mode = config.routing_mode,
                .estimator = config.estimator,
                .operators = static_cast<index>(Middle::count),
                .thresholds = config.thresholds(layer),
                .target_share = config.target_share,
                .random_seed = config.random_seed,
                .collapse_regulariser = config.use_collapse_reg,
                .collapse_detached = config.collapse_reg_detached,
                .collapse_lambda = config.lambda_reg};
    }
};

// The whole model.
template <executor Exec, class T, class Middle = dct_or_attention<Exec, T>>
using chiar_former = task_model<Exec, T, chiar_stack<Exec, T, Middle>>;

}  // namespace spectral
