# SPDX-License-Identifier: Apache-2.0
# bench/peers/torch_spectral.py: spectral mixing, entropy and norm in PyTorch on the shape of bench/spectral_mix_cuda.cu: by FFT, eager and
# compiled, and by one matrix product with the folded filter (without entropy). Milliseconds, medians of event times.
import math
import torch
import torch.nn.functional as F

n, d, eps = 65536, 1024, 1e-10
dev = dict(device="cuda")
k = torch.arange(d, **dev)
turn = torch.polar(torch.ones(d, **dev), -math.pi * k / (2 * d))
scale = torch.where(k == 0, math.sqrt(1 / d), math.sqrt(2 / d))


def dct(x):  # orthonormal, Makhoul's order
    v = torch.cat([x[:, ::2], x[:, 1::2].flip(1)], 1)
    y = torch.fft.rfft(v) * turn[: d // 2 + 1]
    return torch.cat([y.real, -y.imag[:, 1:-1].flip(1)], 1) * scale


def idct(X):
    X = X / scale
    imaginary = torch.cat([torch.zeros_like(X[:, :1]), -X[:, 1:].flip(1)], 1)
    v = torch.fft.irfft((torch.complex(X, imaginary) * turn.conj())[:, : d // 2 + 1], n=d)
    return torch.stack([v[:, : d // 2], v.flip(1)[:, : d // 2]], 2).reshape(-1, d)


def entropy(X):
    p = X * X
    p = p / (p.sum(1, keepdim=True) + eps)
    return -(p * torch.log(p + eps)).sum(1) / (math.log(d) + eps)


def mixed(x, X, w, gamma, beta):
    return F.layer_norm(x.float() + idct(w * X), (d,), gamma, beta).to(torch.bfloat16)


def mix(x, w, gamma, beta):
    return mixed(x, dct(x.float()), w, gamma, beta)


def routed(x, w, gamma, beta):
    X = dct(x.float())
    h = entropy(X)
    return torch.where((h < 2)[:, None], mixed(x, X, w, gamma, beta), x), h


def only_entropy(x):
    return entropy(dct(x.float()))


def median_ms(f, repeats=15):
    times = []
    for _ in range(repeats + 3):
        a, b = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        a.record()
        f()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times[3:])[repeats // 2]


@torch.no_grad()
def main():
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    x = torch.randn(n, d, **dev).to(torch.bfloat16)
    w, gamma, beta = 0.5 + 0.25 * torch.randn(d, **dev), torch.ones(d, **dev), torch.zeros(d, **dev)
    back = idct(dct(x[:64].float()))
    print(f"idct(dct(x)) against x: {(back - x[:64].float()).abs().max():.1e}")
    folded = torch.randn(d, d, **dev).to(torch.bfloat16)
    y = torch.empty_like(x)
    median_ms(lambda: y.copy_(x), 50)  # the card wakes up
    print(f"copy {median_ms(lambda: y.copy_(x)):.3f}  one product {median_ms(lambda: torch.matmul(x, folded, out=y)):.3f}")
    for name, wrap in (("eager", lambda f: f), ("compiled", lambda f: torch.compile(f))):
        m, e, r = wrap(mix), wrap(only_entropy), wrap(routed)
        print(
            f"{name:8} mix + norm {median_ms(lambda: m(x, w, gamma, beta)):.3f}  entropy {median_ms(lambda: e(x)):.3f}  "
            f"entropy + route + mix + norm {median_ms(lambda: r(x, w, gamma, beta)):.3f}",
            flush=True,
        )


main()
