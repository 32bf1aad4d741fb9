// SPDX-License-Identifier: Apache-2.0
// tests/layers/token_embedding_test.cpp: token and position tables with dropout; an id that occurs twice adds up
#include <spectral/layers/token_embedding.hpp>
#include "layer_test.hpp"

namespace spectral::test::token_embedding_test {

namespace {
constexpr index vocabulary = 7;

template <class Rig>
struct embedding_calls {
    Rig& rig;
    auto ids() {
        auto v = rig.ex.memory().template vector<row_index>(rig.c.rows());
        rig.ex.copy_from_host(v.data, random_ids(rig.c.rows(), vocabulary, 3).data(),
                              static_cast<std::size_t>(rig.c.rows()) * sizeof(row_index));
        return v;
    }
    vector_view<row_index> kept{};
    template <class Pass, class X, class Y, class Saved>
    void forward(Pass& p, X, Y y, Saved&) {
        rig.layer.forward(p, kept = ids(), y);
    }
    template <class Pass, class Y, class X, class Saved>
    void backward(Pass& p, Y dL_dy, X, Saved&) {
        rig.layer.backward(p, kept, dL_dy);
    }
};
struct nothing {};
}  // namespace

TEMPLATE_LIST_TEST_CASE("token_embedding", "[layers][token_embedding]", targets) {
    for (index positions : {0, 9})
        for (double dropout : {0.0, 0.4}) {
            const layer_case c{.dropout = dropout};
            const std::string about =
                std::to_string(positions) + " learned positions, dropout " + std::to_string(dropout);
            compare_with_oracle<TestType>("token_embedding", about, [&]<class On>() {
                layer_rig<On, token_embedding<typename On::executor, typename On::scalar>> rig(c, vocabulary, c.width,
                                                                                               positions, dropout);
                return rig.template results<nothing>(embedding_calls<decltype(rig)>{rig});
            });
            if constexpr (std::is_same_v<TestType, oracle>) {
                layer_rig<oracle, token_embedding<reference::executor, double>> rig(c, vocabulary, c.width, positions,
                                                                                    dropout);
                rig.template require_gradients<nothing>(embedding_calls<decltype(rig)>{rig},
                                                        "token_embedding, " + about);
                CHECK(rig.store.named().size() == (positions ? 2 : 1));
            }
        }
}

}  // namespace spectral::test::token_embedding_test
