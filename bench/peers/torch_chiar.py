# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch user would run instead: CHIAR-Former and its full-attention baseline, bf16 autocast, SDPA, torch.compile.

usage: python3 bench/peers/torch_chiar.py [--model full|chiar|both] [--batch 32] [--time 256] [--eager] [--cpu] [--small]
Prints one line per case: model, tokens/s of a whole training step (forward, loss, backward, clip, AdamW), memory.
Both operators run on every token and the gate multiplies, as the published implementation does; `--dct matmul`
computes the transform as two matrix products (the fastest form found in PyTorch), `--dct fft` as FFTs.
"""

import argparse, gc, json, math, time
import torch, torch.nn as nn, torch.nn.functional as F


class Rope(nn.Module):
    def __init__(self, dim, n, base=10000.0):
        super().__init__()
        f = torch.outer(torch.arange(n).float(), base ** (-torch.arange(0, dim, 2).float() / dim))
        f = torch.cat([f, f], -1)
        self.register_buffer("cos", f.cos())
        self.register_buffer("sin", f.sin())

    def forward(self, x):
        a, b = x.chunk(2, -1)
        T = x.shape[-2]
        return (x * self.cos[:T] + torch.cat([-b, a], -1) * self.sin[:T]).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, d, h, n):
        super().__init__()
        self.h = h
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm = nn.LayerNorm(d)
        self.rope = Rope(d // h, n)

    def forward(self, x):
        B, T, d = x.shape
        q, k, v = (t.view(B, T, self.h, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        o = F.scaled_dot_product_attention(self.rope(q), self.rope(k), v, is_causal=True)
        return self.norm(x + self.out(o.transpose(1, 2).reshape(B, T, d)))


def dct_matrix(d):
    k = torch.arange(d, dtype=torch.float64)[:, None]
    n = torch.arange(d, dtype=torch.float64)[None]
    c = torch.cos(math.pi * (2 * n + 1) * k / (2 * d)) * math.sqrt(2 / d)
    c[0] /= math.sqrt(2)
    return c.float()


class Spectral(nn.Module):
    def __init__(self, d, form):
        super().__init__()
        self.form = form
        self.d = d
        self.register_buffer("C", dct_matrix(d))

    def dct(self, x):
        if self.form == "matmul":
            return x @ self.C.T.to(x.dtype)
        x = x.float()
        d = self.d
        k = torch.arange(d, device=x.device)
        V = torch.fft.rfft(torch.cat([x, x.flip(-1)], -1))[..., :d] * torch.exp(-1j * math.pi * k / (2 * d))
        s = torch.full((d,), math.sqrt(1 / (2 * d)), device=x.device)
        s[0] /= math.sqrt(2)
        return V.real * s

    def idct(self, X):
        if self.form == "matmul":
            return X @ self.C.to(X.dtype)
        d = self.d
        k = torch.arange(d, device=X.device)
        s = torch.full((d,), math.sqrt(2 * d), device=X.device)
        s[0] *= math.sqrt(2)
        Z = (X * s) * torch.exp(1j * math.pi * k / (2 * d))
        return torch.fft.irfft(F.pad(Z, (0, 1)), n=2 * d)[..., :d]


class Layer(nn.Module):
    def __init__(self, d, h, n, kind, tau, form):
        super().__init__()
        self.kind, self.tau = kind, tau
        if kind != "dct":
            self.attn = Attention(d, h, n)
        if kind != "attn":
            self.sp = Spectral(d, form)
            self.w = nn.Parameter(torch.ones(d))
            self.dnorm = nn.LayerNorm(d)
        self.ffn = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        if self.kind == "attn":
            y = self.attn(x)
        else:
            X = self.sp.dct(x)
            y = self.dnorm(x + self.sp.idct(X * self.w))
            if self.kind == "routed":
                p = X.float().square()
                p = p / (p.sum(-1, keepdim=True) + 1e-8)
                H = -(p * (p + 1e-8).log()).sum(-1, keepdim=True) / math.log(x.shape[-1])
                y = torch.where(H > self.tau, self.attn(x), y)
        return self.norm(y + self.ffn(y))


class Model(nn.Module):
    def __init__(self, chiar, V, d, h, L, n, form, tau=0.8954):
        super().__init__()
        self.chiar = chiar
        self.emb = nn.Embedding(V, d)
        self.gate = nn.Linear(d, 1)
        kinds = ["dct"] + ["routed"] * (L - 2) + ["attn"] if chiar else ["attn"] * L
        self.layers = nn.ModuleList(Layer(d, h, n, k, tau, form) for k in kinds)
        self.norm = nn.LayerNorm(d)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, 0, 0.02)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 2.0)

    def forward(self, ids, targets):
        x = self.emb(ids)
        for i, layer in enumerate(self.layers):
            if i == 0 and self.chiar:
                g = torch.sigmoid(self.gate(x.mean((0, 1))))
                x = g * layer(x) + (1 - g) * x
            else:
                x = layer(x)
        return F.cross_entropy(F.linear(self.norm(x), self.emb.weight).flatten(0, 1), targets.flatten())


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--batch", type=int, default=32)
    a.add_argument("--time", type=int, default=256)
    a.add_argument("--model", default="both", choices=["full", "chiar", "both"])
    a.add_argument("--eager", action="store_true")
    a.add_argument("--cpu", action="store_true")
    a.add_argument("--small", action="store_true")
    a.add_argument("--dct", default="matmul", choices=["matmul", "fft"])
    a.add_argument("--vocab", type=int, default=50304)
    a.add_argument("--steps", type=int, default=10)
    o = a.parse_args()
    dev = "cpu" if o.cpu else "cuda"
    d, h, L = (256, 4, 4) if o.small else (1024, 16, 28)
    for chiar in {"full": (False,), "chiar": (True,), "both": (False, True)}[o.model]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        m = Model(chiar, o.vocab, d, h, L, o.time, o.dct).to(dev)
        n = sum(p.numel() for p in m.parameters())
        opt = torch.optim.AdamW(m.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01, fused=not o.cpu)
        f = m if o.eager else torch.compile(m)
        ids = torch.randint(0, o.vocab, (o.batch, o.time + 1), device=dev)

        def step():
            with torch.autocast(dev, torch.bfloat16, enabled=not o.cpu):
                loss = f(ids[:, :-1], ids[:, 1:])
            loss.backward()
            nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)

        for _ in range(4):
            step()
        ts = []
        for _ in range(o.steps):
            if not o.cpu:
                torch.cuda.synchronize()
            t0 = time.perf_counter()
            step()
            if not o.cpu:
                torch.cuda.synchronize()
            ts.append(time.perf_counter() - t0)
        t = sorted(ts)[len(ts) // 2]
        tok = o.batch * o.time
        row = dict(
            model="chiar" if chiar else "full_attention",
            compiled=not o.eager,
            dct=o.dct,
            batch=o.batch,
            time=o.time,
            params=n,
            ms=t * 1e3,
            fastest_ms=min(ts) * 1e3,
            tokens_per_s=tok / t,
            gib=0 if o.cpu else torch.cuda.max_memory_allocated() / 2**30,
            device="cpu" if o.cpu else torch.cuda.get_device_name(),
        )
        print(json.dumps(row), flush=True)
        del m, f, opt
        gc.collect()
        if not o.cpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


main()
