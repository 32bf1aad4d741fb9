# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch user would run instead for LayerRoute's backbone (Qwen2.5-0.5B shape, random weights, bf16, one GPU).

usage: python3 bench/peers/torch_qwen.py [--cases decode generate train] [--layers 24]
Cases, a line of JSON each: `decode`, greedy decoding of one sequence with a static key/value cache captured in a CUDA
graph (a strong hand-made decoder); `generate`, Hugging Face's, and its prefill; `train`, a PEFT LoRA training step,
eager and compiled. Times are medians.
`--layers N` keeps N of the 24 blocks: the ideal time of a model that skips 24 - N of them.
"""

import argparse, gc, json, time
import torch, torch.nn.functional as F
from transformers import Qwen2Config, Qwen2ForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--layers", type=int, default=24)
parser.add_argument(
    "--cases", nargs="+", choices=["decode", "generate", "train"], default=["decode", "generate", "train"]
)
o = parser.parse_args()
dev = "cuda"
cfg = Qwen2Config(
    vocab_size=151936,
    hidden_size=896,
    intermediate_size=4864,
    num_hidden_layers=o.layers,
    num_attention_heads=14,
    num_key_value_heads=2,
    max_position_embeddings=32768,
    rope_theta=1e6,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)


def rec(**v):
    print(json.dumps(dict(layers=o.layers, **v, device=torch.cuda.get_device_name())), flush=True)


def med(fn, n=10, warm=3):
    for _ in range(warm):
        fn()
    ts = []
    for _ in range(n):
        torch.cuda.synchronize()
        t0 = time.perf_counter()
        fn()
        torch.cuda.synchronize()
        ts.append(time.perf_counter() - t0)
    return sorted(ts)[n // 2]


def backbone():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(cfg).to(dev, torch.bfloat16)


@torch.no_grad()
def decode(T=512, prompt=128, new=128):
    core = backbone().eval().model
    H, KV, D = 14, 2, 64
    S = T
    W = []
    for l in core.layers:
        s = l.self_attn
        W.append(
            dict(
                n1=l.input_layernorm.weight,
                n2=l.post_attention_layernorm.weight,
                qkv=torch.cat([s.q_proj.weight, s.k_proj.weight, s.v_proj.weight]),
                bqkv=torch.cat([s.q_proj.bias, s.k_proj.bias, s.v_proj.bias]),
                o=s.o_proj.weight,
                gu=torch.cat([l.mlp.gate_proj.weight, l.mlp.up_proj.weight]),
                dn=l.mlp.down_proj.weight,
            )
        )
    K = torch.zeros(o.layers, 1, KV, S, D, device=dev, dtype=torch.bfloat16)
    V = torch.zeros_like(K)
    inv = 1e6 ** (-torch.arange(0, D, 2, device=dev).float() / D)
    tok = torch.zeros(1, dtype=torch.long, device=dev)
    pos = torch.zeros(1, dtype=torch.long, device=dev)
    ar = torch.arange(S, device=dev)

    def rms(x, w):
        return F.rms_norm(x, (896,), w, 1e-6)

    def rot(x, c, s):
        p, q = x.chunk(2, -1)
        return x * c + torch.cat([-q, p], -1) * s

    def step_():
        h = core.embed_tokens(tok)
        f = pos.float()[:, None] * inv
        c = torch.cat([f, f], -1).cos().bfloat16()
        s = torch.cat([f, f], -1).sin().bfloat16()
        mask = (ar <= pos)[None, None, None]
        for i, w in enumerate(W):
            q, k, v = F.linear(rms(h, w["n1"]), w["qkv"], w["bqkv"]).split([896, 128, 128], -1)
            q = rot(q.view(1, H, D), c, s)
            k = rot(k.view(1, KV, D), c, s)
            K[i].index_copy_(2, pos, k.view(1, KV, 1, D))
            V[i].index_copy_(2, pos, v.view(1, KV, 1, D))
            at = F.scaled_dot_product_attention(q.view(1, H, 1, D), K[i], V[i], attn_mask=mask, enable_gqa=True)
            h = h + F.linear(at.reshape(1, 896), w["o"])
            g, u = F.linear(rms(h, w["n2"]), w["gu"]).chunk(2, -1)
            h = h + F.linear(F.silu(g) * u, w["dn"])
        tok.copy_(F.linear(rms(h, core.norm.weight), core.embed_tokens.weight).argmax(-1))
        pos.add_(1)

    comp = torch.compile(step_)
    for _ in range(3):
        comp()
    torch.cuda.synchronize()
    g = torch.cuda.CUDAGraph()
    with torch.cuda.graph(g):
        comp()

    def run():
        pos.fill_(prompt)
        for _ in range(new):
            g.replay()

    t = med(run, 5, 2)
    rec(case="decode_graph_compiled", ms_per_token=t / new * 1e3, tokens_per_s=new / t)


@torch.no_grad()
def generate():
    m = backbone().eval()
    for b in (1, 8):
        ids = torch.randint(0, 150000, (b, 512), device=dev)
        t = med(lambda: m(ids, logits_to_keep=1))
        rec(case="prefill", batch=b, time=512, ms=t * 1e3, tokens_per_s=b * 512 / t)
    ids = torch.randint(0, 150000, (1, 128), device=dev)
    t = med(lambda: m.generate(ids, max_new_tokens=64, min_new_tokens=64, do_sample=False), 3, 1)
    rec(case="hf_generate", ms_per_token=t / 64 * 1e3, tokens_per_s=64 / t)


def train():
    from peft import LoraConfig, get_peft_model

    for comp, B in ((False, 4), (False, 16), (True, 4), (True, 16)):
        torch._dynamo.reset()
        m = get_peft_model(
            backbone(),
            LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
        ).train()
        ps = [p for p in m.parameters() if p.requires_grad]
        opt = torch.optim.AdamW(ps, lr=2e-4, fused=True)
        ids = torch.randint(0, 150000, (B, 512), device=dev)
        f = torch.compile(m) if comp else m

        def step():
            f(input_ids=ids, labels=ids).loss.backward()
            torch.nn.utils.clip_grad_norm_(ps, 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)

        torch.cuda.reset_peak_memory_stats()
        try:
            t = med(step, 8, 4)
            rec(
                case="lora_train",
                compiled=comp,
                batch=B,
                time=512,
                ms=t * 1e3,
                tokens_per_s=B * 512 / t,
                gib=torch.cuda.max_memory_allocated() / 2**30,
            )
        except Exception as e:
            print("lora_train compiled", comp, "failed:", type(e).__name__, str(e)[:160], flush=True)
        del m, f, opt, ps
        gc.collect()
        torch.cuda.empty_cache()


for case in o.cases:
    {"decode": decode, "generate": generate, "train": train}[case]()
    gc.collect()
    torch.cuda.empty_cache()
