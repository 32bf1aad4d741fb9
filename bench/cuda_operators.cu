// SPDX-License-Identifier: Apache-2.0
// bench/cuda_operators.cu: timings of single operators on a GPU, medians of event times (not yet run on one)
//   nvcc -std=c++20 -O3 -arch=sm_90 --expt-relaxed-constexpr --extended-lambda -Iinclude -Ibackends/cuda bench/cuda_operators.cu -lcublasLt
#include <cmath>
#include <cstdio>
#include <spectral/cuda.hpp>
namespace spectral {
using E = cuda::executor;
template <class T>
tensor<E, T, 2> random(E& ex, index n, index c, double scale = 1) {
    tensor<E, T, 2> t(ex, {n, c});
    T* p = t.data();
    cuda::detail::for_each(ex, "random", n * c, [=] __device__(index i) {
        p[i] = cuda::detail::narrow<T>(
            static_cast<cuda::detail::compute<T>>((random_stream{5, 7}.uniform(i) * 2 - 1) * scale));
    });
    return t;
}
template <class F>
double time_ms(E& ex, F f, int repeats = 9) {
    cudaEvent_t a, b;
    cudaEventCreate(&a);
    cudaEventCreate(&b);
    f();
    f();
    ex.synchronize();
    std::vector<float> t;
    for (int i = 0; i < repeats; ++i) {
        cudaEventRecord(a, ex.stream());
        f();
        cudaEventRecord(b, ex.stream());
        cudaEventSynchronize(b);
        float ms;
        cudaEventElapsedTime(&ms, a, b);
        t.push_back(ms);
    }
    std::sort(t.begin(), t.end());
    return t[t.size() / 2];
}
template <class T>
void run(E& ex, const char* type) {
    const double B = sizeof(T);
    auto say = [&](const char* what, double ms, double bytes, double flop) {
        std::printf("%-8s %-46s %9.4f ms %8.0f GB/s %8.1f TFLOP/s\n", type, what, ms, bytes / ms / 1e6,
                    flop / ms / 1e9);
    };
    {
        const index N = 65536, C = 1024;
        auto x = random<T>(ex, N, C), y = random<T>(ex, N, C), z = random<T>(ex, N, C), w = random<T>(ex, 1, C),
             g = random<T>(ex, 4, C), st = random<T>(ex, 2, N);
        auto W = view<T, 1>{w.data(), {C}};
        auto G = view<T, 1>{g.data(), {C}};
        norm_statistics<T> s{view<T, 1>{st.data(), {N}}, view<T, 1>{st.data() + N, {N}}};
        say("copy 65536x1024", time_ms(ex, [&] { copy<E, T>(ex, x, y); }), 2 * B * N * C, 0);
        say("gelu", time_ms(ex, [&] { gelu_forward<E, T>(ex, x, y); }), 2 * B * N * C, 0);
        say("dropout", time_ms(ex, [&] { dropout<E, T>(ex, x, 0.1, {1, 2}, y); }), 2 * B * N * C, 0);
        say("add_layer_norm",
            time_ms(ex, [&] { add_layer_norm_forward<E, T>(ex, x, x, W, G, 1e-5, y, z, s.mean, s.rstd); }),
            4 * B * N * C, 0);
        say("layer_norm backward",
            time_ms(ex, [&] { layer_norm_backward<E, T>(ex, x, x, W, s.mean, s.rstd, y, W, G); }), 3 * B * N * C, 0);
        say("dct", time_ms(ex, [&] { dct_forward<E, T>(ex, x, dct_norm::ortho, y); }), 2 * B * N * C, 0);
        say("spectral_entropy", time_ms(ex, [&] { spectral_entropy_forward<E, T>(ex, x, dct_norm::ortho, s.mean); }),
            B * N * C, 0);
        say("spectral_mix forward",
            time_ms(
                ex,
                [&] { spectral_mix_forward<E, T>(ex, x, selection::all(N), W, dct_norm::ortho, W, G, 1e-5, y, s); }),
            2 * B * N * C, 0);
        say("spectral_mix backward",
            time_ms(ex,
                    [&] {
                        spectral_mix_backward<E, T>(ex, x, z, selection::all(N), W, dct_norm::ortho, W, s, y, W, G, G);
                    }),
            4 * B * N * C, 0);
        tensor<E, row_index> op(ex, {N});
        std::vector<row_index> h(N);
        for (index i = 0; i < N; ++i) h[i] = (i * 7919) % 3 == 0;
        op.assign(h);
        say("partition",
            time_ms(ex,
                    [&] {
                        arena_scope sc(ex);
                        selection sel[2];
                        partition(ex, op.view(), std::span<selection>(sel, 2));
                    }),
            4.0 * N * 3, 0);
        adamw_options o;
        auto m = random<T>(ex, N, C, 0.1), v = random<T>(ex, N, C, 0.1);
        cuda::detail::fill<T>(ex, "v", v.view(), 0.1f);
        auto flat = [&](auto& t) { return view<T, 1>{t.data(), {N * C}}; };
        say("adamw 67M", time_ms(ex, [&] { adamw_step<E, T>(ex, flat(x), flat(y), flat(m), flat(v), o, 3, 1); }),
            7 * B * N * C, 0);
    }
    {
        const index N = 8192, I = 1024, O = 4096;
        auto x = random<T>(ex, N, I), w = random<T>(ex, O, I), y = random<T>(ex, N, O), b = random<T>(ex, 1, O);
        say("linear 8192x1024 -> 4096",
            time_ms(ex,
                    [&] {
                        linear_forward<E, T>(ex, x, w, view<T, 1>{b.data(), {O}}, y);
                    }),
            0, 2.0 * N * I * O);
        say("linear backward input", time_ms(ex, [&] { linear_backward_input<E, T>(ex, y, w, x); }), 0,
            2.0 * N * I * O);
        say("linear backward weight + bias",
            time_ms(ex,
                    [&] {
                        linear_backward_weight<E, T>(ex, y, x, w, view<T, 1>{b.data(), {O}});
                    }),
            0, 2.0 * N * I * O);
        const index V = 50257;
        auto table = random<T>(ex, V, I, 0.02), dt = random<T>(ex, V, I, 0.02);
        tensor<E, T, 1> loss(ex, {N});
        tensor<E, row_index> ids(ex, {N});
        std::vector<row_index> h(N);
        for (index i = 0; i < N; ++i) h[i] = (i * 7919) % V;
        ids.assign(h);
        auto dx = random<T>(ex, N, I);
        say("linear_cross_entropy 8192 x 50257, with gradients",
            time_ms(ex, [&] { linear_cross_entropy<E, T>(ex, x, table, ids.view(), loss.view(), 1.0 / N, dx, dt); }), 0,
            6.0 * N * I * V);
        say("embedding backward", time_ms(ex, [&] { embedding_backward<E, T>(ex, ids.view(), dx, dt); }), 3 * B * N * I,
            0);
    }
    for (auto [S, time] : {std::pair<index, index>{32, 256}, {4, 4096}}) {
        const index H = 16, D = 64, N = S * time;
        arena_scope sc(ex);
        auto rows = uniform_rows(ex, S, time);
        auto q = random<T>(ex, N, H * D), k = random<T>(ex, N, H * D), v = random<T>(ex, N, H * D),
             out = random<T>(ex, N, H * D), lse = random<T>(ex, N, H), dq = random<T>(ex, N, H * D),
             dk = random<T>(ex, N, H * D), dv = random<T>(ex, N, H * D);
        attention_options o;
        o.heads = o.kv_heads = H;
        o.scale = 0.125;
        const double flop = 2.0 * time * time * D * H * S;
        char name[80];
        std::snprintf(name, 80, "attention forward %d x %d, 16 heads of 64", int(S), int(time));
        say(name,
            time_ms(
                ex, [&] { attention_forward<E, T>(ex, q, k, v, rows, rows, o, out, lse); }, 5),
            0, flop);
        say("  backward",
            time_ms(
                ex, [&] { attention_backward<E, T>(ex, out, q, k, v, out, lse, rows, rows, o, dq, dk, dv); }, 5),
            0, 2.5 * flop);
        o.dropout = 0.1;
        say("  forward with dropout",
            time_ms(
                ex, [&] { attention_forward<E, T>(ex, q, k, v, rows, rows, o, out, lse); }, 5),
            0, flop);
        if (time == 4096) {
            o.dropout = 0;
            std::vector<row_index> half;
            random_stream d{3, 4};
            for (index n = 0; n < N; ++n)
                if (d.uniform(n) < 0.5) half.push_back(n);
            auto list = ex.memory().template vector<row_index>(half.size() + 1);
            row_index c = half.size();
            ex.copy_from_host(list.data, half.data(), half.size() * 4);
            ex.copy_from_host(list.data + c, &c, 4);
            auto some = select_rows(ex, rows, selection{list.data, list.data + c, N});
            auto qh = q.view().slice(0, c), oh = out.view().slice(0, c), lh = lse.view().slice(0, c);
            say("  forward, a random half of the queries",
                time_ms(
                    ex, [&] { attention_forward<E, T>(ex, qh, k, v, some, rows, o, oh, lh); }, 5),
                0, flop / 2);
        }
    }
}
}  // namespace spectral
int main() {
    using namespace spectral;
    E ex({.arena_bytes = std::size_t{4} << 30});
    std::printf("%s, sm_%d, %d multiprocessors\n", ex.device_name().c_str(), ex.architecture(), ex.multiprocessors());
    run<float>(ex, "float");
    run<bfloat16>(ex, "bfloat16");
    return 0;
}
