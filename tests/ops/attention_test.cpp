// SPDX-License-Identifier: Apache-2.0
// tests/ops/attention_test.cpp: attention and its gradients on every executor against the reference in double
//
// Tolerances. Where signs are random, a product of two rows of D is about ‖a‖‖b‖ / √D, and off by eps √D times that.
// With S = |scale| max‖q‖ max‖k‖ / √D a score is off by eps √D S and a weight by the fraction r = eps (√D S + √N +
// |lse| + 4): N weights summed, one exp, one division, lse stored in T. Hence
//   out: r max|v| / (1-p)     lse: r
// dA = keep dL_dout·v is about G = max‖dL_dout‖ max‖v‖ / √D / (1-p), so dS = W (dA - δ) is off by W e, e = 2 G (r + eps
// √D). The weights of a query sum to 1, those of a key to at most C (read off the reference: it is dL_dv where dL_dout
// = 1):
//   dL_dq: scale e max|k|     dL_dk: scale e C max|q|     dL_dv: r C max|dL_dout|
// each times 4 for the worst of many elements, as in support/compare.hpp.
#include <spectral/ops/attention.hpp>
#include <support/gradient_check.hpp>
#include <support/operator_test.hpp>

namespace spectral::test::attention_test {
namespace {

struct sequence_rows {
    std::vector<row_index> begin, end, position, sequence;
    index rows() const { return static_cast<index>(position.size()); }

    template <class On>
    row_map on(On& bench) const {
        return {bench.ids(begin), bench.ids(end), bench.ids(position), bench.ids(sequence)};
    }
};

// Each row of sequences of these lengths with chance `share`; in a cache, rows of no sequence lie around each sequence.
sequence_rows choose_rows(const std::vector<index>& lengths, double share, bool cache, std::uint64_t seed) {
    const random_stream draw{seed, 1};
    std::uint64_t drawn = 0;
    sequence_rows r;
    const auto add = [&](index position, index sequence) {
        r.position.push_back(static_cast<row_index>(position));
        r.sequence.push_back(static_cast<row_index>(sequence));
    };
    for (std::size_t s = 0; s < lengths.size(); ++s) {
        for (std::size_t i = 0; cache && i < s % 3; ++i) add(-1, -1);
        r.begin.push_back(static_cast<row_index>(r.rows()));
        for (index t = 0; t < lengths[s]; ++t)
            if (draw.uniform(drawn++) < share) add(t, static_cast<index>(s));
        r.end.push_back(static_cast<row_index>(r.rows()));
        for (int i = 0; cache && i < 2; ++i) add(-1, -1);
    }
    return r;
}

struct attention_problem {
    std::vector<index> lengths{0, 1, 2, 3, 5, 17, 63, 64, 65, 130};
    attention_options options{};
    index d;
    sequence_rows q_rows, k_rows;
    std::vector<double> q, k, v, dL_dout;
    bool rotated = false;  // gradients of q and k are turned back

    attention_problem(index heads, index kv_heads, index d_, bool causal = true) : d(d_) {
        options.heads = heads;
        options.kv_heads = kv_heads;
        options.scale = 1 / std::sqrt(static_cast<double>(d));
        options.causal = causal;
        options.draw = {7, 11};
    }
    // queries and keys are random subsets of the sequences' rows
    attention_problem& rows(double queries, double keys, bool cache = false) {
        q_rows = choose_rows(lengths, queries, false, 1);
        k_rows = choose_rows(lengths, keys, cache, 2);
        return fill();
    }
    attention_problem& fill() {
        q = normals(q_rows.rows() * q_width(), 3);
        k = normals(k_rows.rows() * k_width(), 4);
        v = normals(k_rows.rows() * k_width(), 5);
        dL_dout = normals(q_rows.rows() * q_width(), 6);
        for (std::size_t i = 0; i < k.size(); ++i)  // rows of no sequence must not be read
            if (k_rows.sequence[i / static_cast<std::size_t>(k_width())] < 0) k[i] = v[i] = nan;
        return *this;
    }
    index q_width() const { return options.heads * d; }
    index k_width() const { return options.kv_heads * d; }
    std::string text() const {
        return "heads " + shape(options.heads, options.kv_heads) + " D " + std::to_string(d) + " rows " +
               shape(q_rows.rows(), k_rows.rows()) + (options.causal ? " causal" : " full") + " dropout " +
               std::to_string(options.dropout);
    }
};

using results = std::vector<std::pair<std::string, std::vector<double>>>;  // by name

template <class On>
results run(On& on, const attention_problem& p, bool gradients = true) {
    using scalar = typename On::scalar;
    const index nq = p.q_rows.rows(), nk = p.k_rows.rows(), wq = p.q_width(), wk = p.k_width();
    const row_map q_rows = p.q_rows.on(on), k_rows = p.k_rows.on(on);
    auto q = on.input(nq, wq, p.q), k = on.input(nk, wk, p.k), v = on.input(nk, wk, p.v);
    auto out = on.output(nq, wq);
    auto lse = on.statistics(nq, p.options.heads);
    attention_forward<typename On::executor, scalar>(on.ex, q, k, v, q_rows, k_rows, p.options, out, lse);
    results r{{"out", on.read(out)}, {"lse", on.read(lse)}};
    if (!gradients) return r;
    auto dq = on.output(nq, wq), dk = on.output(nk, wk), dv = on.output(nk, wk);
    const_matrix<statistic<scalar>> table;
    if (p.rotated) {
        const index positions = *std::max_element(p.lengths.begin(), p.lengths.end());
        table = on.statistics(positions, p.d, rotary_table<double>(positions, p.d, 100));
    }
    attention_backward<typename On::executor, scalar>(on.ex, on.input(nq, wq, p.dL_dout), q, k, v, out, lse, q_rows,
                                                      k_rows, p.options, dq, dk, dv, table);
    r.insert(r.end(), {{"dL_dq", on.read(dq)}, {"dL_dk", on.read(dk)}, {"dL_dv", on.read(dv)}});
    return r;
}

double largest_norm(const std::vector<double>& x, index d) {  // of rows of D numbers
    double most = 0;
    for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(d)) {
        double sum = 0;
        for (std::size_t c = i; c < i + static_cast<std::size_t>(d); ++c) sum += x[c] * x[c];
        if (sum > most) most = sum;
    }
    return std::sqrt(most);
}

// The allowed errors of run()'s results, in their order, for scalars of precision eps
std::vector<double> bounds(const attention_problem& p, double eps, double lse, double column) {
    const double scale = std::abs(p.options.scale), kept = 1 / (1 - p.options.dropout),
                 root = std::sqrt(static_cast<double>(p.d));
    const double n = static_cast<double>(*std::max_element(p.lengths.begin(), p.lengths.end()));
    const double score = scale * largest_norm(p.q, p.d) * largest_norm(p.k, p.d) / root;
    const double r = eps * (root * score + std::sqrt(n) + lse + 4);
    const double e = 2 * (r + eps * root) * kept * largest_norm(p.dL_dout, p.d) * largest_norm(p.v, p.d) / root;
    const double turn = p.rotated ? std::sqrt(2) : 1;  // |cos| + |sin|
    return {4 * r * largest(p.v) * kept, 4 * r, 4 * turn * scale * e * largest(p.k),
            4 * turn * scale * e * column * largest(p.q), 4 * r * column * largest(p.dL_dout)};
}

// Runs on the target, dense and in columns of wider matrices, and compares with the reference in double.
template <class Target>
void check_attention_case(const attention_problem& p, bool gradients = true) {
    workbench<oracle> exact;
    const results want = run(exact, p, gradients);
    double column = 1;
    if (gradients) {
        workbench<oracle> bench;
        attention_problem ones = p;
        std::fill(ones.dL_dout.begin(), ones.dL_dout.end(), 1.0);
        column = std::max(column, largest(run(bench, ones).back().second));
    }
    const double eps = static_cast<double>(std::numeric_limits<typename Target::scalar>::epsilon());
    const std::vector<double> allowed = bounds(p, eps, largest(want[1].second), column);
    results first;
    for (layout l : {layout::dense, layout::columns, layout::dense}) {
        if (SPECTRAL_TEST_SANITIZED && l == layout::dense && !first.empty()) break;
        workbench<Target> on(l);
        const results got = run(on, p, gradients);
        on.check_untouched("attention on " + Target::executor_name() + ", " + p.text());
        for (std::size_t i = 0; i < got.size(); ++i)
            compare(
                got[i].second, want[i].second, allowed[i],
                {"attention", got[i].first, Target::executor_name(), scalar_name<typename Target::scalar>, p.text()});
        if (first.empty())
            first = got;
        else if (l == layout::dense && got != first)
            FAIL_CHECK("attention, " << p.text() << ": a second run gave other bits");
    }
    if (gradients)
        for (std::size_t m = 0; m < p.k_rows.sequence.size(); ++m)  // exactly 0 for keys of no sequence
            if (p.k_rows.sequence[m] < 0)
                for (const std::size_t i : {std::size_t{3}, std::size_t{4}})
                    REQUIRE(first[i].second[m * static_cast<std::size_t>(p.k_width())] == 0);
}

const std::vector<std::pair<index, index>> all_heads{{4, 4}, {4, 2}, {4, 1}, {3, 3}};

// The name of a section, so that one can be run by itself: under racecheck a whole case takes hours.
std::string heads_text(index heads, index kv_heads, index d) {
    return std::to_string(heads) + " heads over " + std::to_string(kv_heads) + ", width " + std::to_string(d);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("attention: heads, widths, masks", "[ops][attention]", targets) {
    for (auto [heads, kv_heads] : all_heads)
        for (index d : {2, 8, 16, 32, 33, 64, 128, 256}) {
            // the reference is slow: of wide heads one grouping, and what a kernel of the GPU treats apart
            if (d >= 64 && kv_heads != 2 && !on_cuda(TestType::instance())) continue;
            if (d == 128 && heads == kv_heads) continue;
            if (d == 256 && kv_heads != 2) continue;
            DYNAMIC_SECTION(heads_text(heads, kv_heads, d)) {
                check_attention_case<TestType>(attention_problem(heads, kv_heads, d).rows(1, 1));
                check_attention_case<TestType>(attention_problem(heads, kv_heads, d, false).rows(0.3, 1));
            }
        }
}

TEMPLATE_LIST_TEST_CASE("attention: subsets of queries and keys, caches", "[ops][attention]", targets) {
    for (auto [heads, kv_heads] : all_heads)
        for (bool causal : {true, false})
            for (double queries : {0.0, 0.05, 0.5})
                DYNAMIC_SECTION(heads_text(heads, kv_heads, 16) << (causal ? ", causal, " : ", full, ") << queries) {
                    for (double keys : {0.0, 0.3, 1.0})
                        check_attention_case<TestType>(
                            attention_problem(heads, kv_heads, 16, causal).rows(queries, keys, true));
                }
}

TEMPLATE_LIST_TEST_CASE("attention: query rows of no sequence", "[ops][attention]", targets) {
    attention_problem p(4, 2, 16);
    p.q_rows = choose_rows(p.lengths, 0.5, true, 8);
    p.k_rows = choose_rows(p.lengths, 1, false, 8);
    check_attention_case<TestType>(p.fill());
}

TEMPLATE_LIST_TEST_CASE("attention: no sequence, or no row of one", "[ops][attention]", targets) {
    for (std::vector<index> lengths : {std::vector<index>{}, {0}, {0, 0}})
        for (auto [heads, kv_heads] : {std::pair<index, index>{4, 4}, {4, 2}}) {
            attention_problem p(heads, kv_heads, 16);
            p.lengths = lengths;
            check_attention_case<TestType>(p.rows(1, 1));
            check_attention_case<TestType>(p.rows(1, 1, true));  // rows of a cache that no sequence has
        }
}

TEMPLATE_LIST_TEST_CASE("attention: dropout", "[ops][attention]", targets) {
    for (auto [heads, kv_heads] : all_heads)
        for (double queries : {0.05, 1.0})
            for (index d : {32, 33}) DYNAMIC_SECTION(heads_text(heads, kv_heads, d) << ", " << queries) {
                    attention_problem p(heads, kv_heads, d);
                    p.options.dropout = 0.25;
                    check_attention_case<TestType>(p.rows(queries, 1, queries < 1));
                }
}

TEMPLATE_LIST_TEST_CASE("attention: gradients of rotated queries and keys", "[ops][attention][rotary]", targets) {
    for (index d : {6, 32, 40, 64, 96, 128}) {
        if (d > 64 && !on_cuda(TestType::instance())) continue;
        DYNAMIC_SECTION(heads_text(4, 2, d)) {
            attention_problem p(4, 2, d);
            p.rotated = true;
            check_attention_case<TestType>(p.rows(0.6, 1));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("attention: tiles of long sequences", "[ops][attention]", targets) {
    if (!on_cuda(TestType::instance())) return;  // which has other tiles for them
    for (index d : {32, 64})
        for (double dropout : {0.0, 0.25}) DYNAMIC_SECTION(heads_text(2, 1, d) << ", dropout " << dropout) {
                attention_problem p(2, 1, d);
                p.lengths = {1100, 1300};  // more than forward's short tiles are for
                p.options.dropout = dropout;
                p.rotated = dropout == 0;
                check_attention_case<TestType>(p.rows(0.95, 1));
            }
}

TEMPLATE_LIST_TEST_CASE("attention: keys of long sequences add to the gradients of queries in turn", "[ops][attention]",
                        targets) {
    if (!on_cuda(TestType::instance())) return;
    for (bool causal : {true, false})
        for (index d : {32, 64}) DYNAMIC_SECTION(heads_text(4, 2, d) << (causal ? ", causal" : ", full")) {
                if (d == 32 && !causal) continue;
                attention_problem p(4, 2, d, causal);
                p.lengths = {500, 300, 900, 450};
                p.q_rows = choose_rows(p.lengths, 0.9, true, 8);
                p.k_rows = choose_rows(p.lengths, 0.4, true, 9);
                const auto leave_out = [](sequence_rows& rows, std::size_t sequence) {
                    for (auto n = static_cast<std::size_t>(rows.begin[sequence]);
                         n < static_cast<std::size_t>(rows.end[sequence]); ++n)
                        rows.sequence[n] = rows.position[n] = -1;
                    rows.end[sequence] = rows.begin[sequence];
                };
                leave_out(p.q_rows, 1);  // keys that nobody sees
                leave_out(p.k_rows, 3);  // queries that see nothing
                check_attention_case<TestType>(p.fill());
            }
}

// Gradients of few keys are made by several blocks, each for some of the query heads that share them.
TEMPLATE_LIST_TEST_CASE("attention: query heads shared out", "[ops][attention]", targets) {
    if (!on_cuda(TestType::instance())) return;
    for (index sequences : {1, 150, 600}) {  // a head to a block, some, all
        if (sequences == 600 && !SPECTRAL_TEST_GPU) continue;  // slow
        DYNAMIC_SECTION(heads_text(7, 1, 64) << ", " << sequences << " sequences") {
            attention_problem p(7, 1, 64);
            p.lengths.assign(static_cast<std::size_t>(sequences), 3);
            p.lengths.front() = 300;
            p.rotated = true;
            check_attention_case<TestType>(p.rows(0.9, 1));
        }
    }
}

TEMPLATE_LIST_TEST_CASE("attention: one row a sequence against a long cache", "[ops][attention]", targets) {
    for (auto [heads, kv_heads] : all_heads)
        for (double dropout : {0.0, 0.5}) {
            attention_problem p(heads, kv_heads, heads == 3 ? 33 : 64);
            p.options.dropout = dropout;
            p.lengths = {1500, 70, 2600};
            p.k_rows = choose_rows(p.lengths, 1, true, 9);
            p.q_rows = {{0, 1, 2}, {1, 2, 3}, {1499, 69, 2590}, {0, 1, 2}};
            check_attention_case<TestType>(p.fill(), false);
        }
}

TEMPLATE_LIST_TEST_CASE("attention: weights sum to one", "[ops][attention]", targets) {
    for (auto [heads, kv_heads] : all_heads) {
        attention_problem p(heads, kv_heads, 16);
        p.rows(1, 1);
        std::fill(p.v.begin(), p.v.end(), 1.0);
        workbench<TestType> on;
        const auto out = run(on, p, false)[0].second;  // what the two sums over at most 130 weights differ by
        compare(out, std::vector<double>(out.size(), 1.0), allowed<typename TestType::scalar>(2 * 130, 1),
                {"attention", "sum", TestType::executor_name(), scalar_name<typename TestType::scalar>, p.text()});
    }
}

TEMPLATE_LIST_TEST_CASE("attention: later rows do not change earlier ones", "[ops][attention]", targets) {
    attention_problem p(4, 2, 33);
    p.lengths = {130};
    p.rows(1, 1);
    workbench<TestType> on;
    const auto whole = run(on, p, false);
    const double eps = static_cast<double>(std::numeric_limits<typename TestType::scalar>::epsilon());
    for (index n : {1, 2, 16, 17, 63, 64, 65, 129}) {
        attention_problem head = p;
        head.lengths = {n};
        head.rows(1, 1);  // draws by row: the same first rows
        const auto got = run(on, head, false)[0].second;
        const auto end = whole[0].second.begin() + n * p.q_width();
        compare(got, std::vector<double>(whole[0].second.begin(), end), bounds(p, eps, largest(whole[1].second), 1)[0],
                {"attention", "prefix", TestType::executor_name(), scalar_name<typename TestType::scalar>, shape(n)});
    }
}

TEMPLATE_LIST_TEST_CASE("attention: scores of thousands neither overflow nor mix", "[ops][attention]", targets) {
    attention_problem p(4, 4, 16);
    p.options.scale = 500;  // all weight on one key
    p.rows(1, 1);
    workbench<TestType> on;
    for (const auto& [name, values] : run(on, p))
        for (double x : values) REQUIRE(std::isfinite(x));
}

TEST_CASE("attention: gradient of the reference against finite differences", "[ops][attention]") {
    for (double dropout : {0.0, 0.3})
        for (bool causal : {true, false}) {
            attention_problem p(4, 2, 3, causal);
            p.options.dropout = dropout;
            p.lengths = {0, 1, 2, 7};
            p.rows(0.7, 0.8, true);
            for (auto* x : {&p.k, &p.v})
                for (double& e : *x)
                    if (std::isnan(e)) e = 0;  // read by the difference quotients
            workbench<oracle> on;
            const index nq = p.q_rows.rows(), nk = p.k_rows.rows(), wq = p.q_width(), wk = p.k_width();
            const row_map q_rows = p.q_rows.on(on), k_rows = p.k_rows.on(on);
            auto q = on.state(nq, wq, p.q), k = on.state(nk, wk, p.k), v = on.state(nk, wk, p.v);
            auto out = on.output(nq, wq);
            auto lse = on.statistics(nq, p.options.heads);
            const auto loss = [&] {
                attention_forward<reference::executor, double>(on.ex, q, k, v, q_rows, k_rows, p.options, out, lse);
                return dot(p.dL_dout, on.read(out));
            };
            loss();
            auto dq = on.output(nq, wq), dk = on.output(nk, wk), dv = on.output(nk, wk);
            attention_backward<reference::executor, double>(on.ex, on.input(nq, wq, p.dL_dout), q, k, v, out, lse,
                                                            q_rows, k_rows, p.options, dq, dk, dv);
            require_gradient(on.ex, q, dq, loss, "attention " + p.text() + ": q");
            require_gradient(on.ex, k, dk, loss, "attention " + p.text() + ": k");
            require_gradient(on.ex, v, dv, loss, "attention " + p.text() + ": v");
        }
}

TEMPLATE_LIST_TEST_CASE("attention: errors name what is wrong", "[ops][attention]", targets) {
    attention_problem p(4, 3, 2);
    p.rows(1, 1);
    workbench<TestType> on;
    check_throws([&] { run(on, p); }, {"attention_forward", "heads (4)", "(3)"});
}

}  // namespace spectral::test::attention_test
