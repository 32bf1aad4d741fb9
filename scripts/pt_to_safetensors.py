#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# scripts/pt_to_safetensors.py: the CHIAR-Former authors' checkpoints (.pt) as config.json + model.safetensors
#
#   scripts/pt_to_safetensors.py chiar_dct_attn_400M_best.pt OUT_FOLDER [--tau-low 0.8935 --tau-high 0.8973]
#   scripts/pt_to_safetensors.py --self-test
#
# Such a file is a pickle of {"step", "model", "val_ppl", "cfg"}. "cfg" holds only what the training script set on its
# configuration object, not that class's defaults, so shapes are read off the tensors: width, layers and vocabulary from
# the matrices; heads, rotary base and length from the rotary tables. What nothing in the file tells (thresholds, dropout)
# comes from the command line or from the published values, and is said so. Needs torch and safetensors.
import argparse
import json
import os
import re
import sys

KNOWN = re.compile(
    r"token_emb\.weight|pos_emb\.weight|norm\.(weight|bias)|meta_router\.gate_proj\.(weight|bias)"
    r"|layers\.\d+\.((dct_mix|rbf_mix)\.(w|omega|(norm|ffn\.[03]|out_proj)\.(weight|bias))"
    r"|attn\.(qkv|out_proj|norm)\.(weight|bias)|ffn\.[03]\.(weight|bias)|ffn_norm\.(weight|bias)"
    r"|router\.gate_proj\.(weight|bias))"
    r"|(attns\.\d+\.(qkv|out_proj|norm)|ffns\.\d+\.[03]|ffn_norms\.\d+)\.(weight|bias)")
REDUNDANT = re.compile(r"(backbone\.)?lm_head\.weight|.*\.rope\.(inv_freq|cos_cache|sin_cache)|_cls_head_\w+\.(weight|bias)")
PUBLISHED_TAU = {1024: (0.8935, 0.8973), 256: (0.855, 0.865)}


class Refused(Exception):
    """One sentence for the user."""


def kept_tensors(state):
    """The tensors that a model of ours has, by our names (they are the authors')."""
    kept, unknown = {}, []
    for name, tensor in state.items():
        name = name.removeprefix("_orig_mod.").removeprefix("module.")  # wrappers of torch.compile and data parallelism
        bare = name.removeprefix("backbone.")
        if REDUNDANT.fullmatch(name):
            continue
        if KNOWN.fullmatch(bare) or re.fullmatch(r"classifier\.[03]\.(weight|bias)", name):
            kept[name] = tensor
        else:
            unknown.append(name)
    if unknown:
        raise Refused("tensors that no CHIAR-Former has: " + ", ".join(sorted(unknown)[:20]))
    return kept


def rotary(state):
    """(values of inv_freq, rows of cos_cache) of any attention layer, or (None, None)"""
    inv_freq = cos_rows = None
    for name, tensor in state.items():
        if name.endswith(".rope.inv_freq"):
            inv_freq = [float(v) for v in tensor.double().tolist()]
        elif name.endswith(".rope.cos_cache"):
            cos_rows = int(tensor.shape[0])
    return inv_freq, cos_rows


def config_of(state, kept, cfg, options, say):
    prefix = "backbone." if any(n.startswith("backbone.") for n in kept) else ""
    if prefix + "token_emb.weight" not in kept:
        raise Refused("no token_emb.weight: this is not a checkpoint of a CHIAR-Former or its baseline")
    vocab_size, d_model = (int(n) for n in kept[prefix + "token_emb.weight"].shape)
    baseline = any(n.startswith("attns.") for n in kept)
    classifier = "classifier.3.weight" in kept
    if baseline and classifier:
        raise Refused("a full-attention classifier: there is no such model here")
    stack = "attns" if baseline else prefix + "layers"
    n_layers = 1 + max(int(n[len(stack) + 1:].split(".")[0]) for n in kept if n.startswith(stack + "."))

    def pick(key, found, fallback, why):
        option = getattr(options, key, None)
        if option is not None:
            return option
        if found is not None:
            if key in cfg and cfg[key] != found:
                say(f"{key}: the tensors say {found}, the file's cfg {cfg[key]}: took the tensors'")
            return found
        if key in cfg:
            return cfg[key]
        say(f"{key}: not in the file, took {fallback} ({why})")
        return fallback

    inv_freq, cos_rows = rotary(state)
    positions = kept.get(prefix + "pos_emb.weight")
    head = 2 * len(inv_freq) if inv_freq else None
    base = None
    if inv_freq and len(inv_freq) > 1:  # inv_freq[1] = base^(-2 / head), known to float32
        base = inv_freq[1] ** (-head / 2)
        base = float(f"{base:.5g}")
    config = {
        "model_type": "full_attention" if baseline else "chiar_classifier" if classifier else "chiar_former",
        "vocab_size": vocab_size,
        "d_model": d_model,
        "n_heads": int(pick("n_heads", d_model // head if head else None, max(1, d_model // 64), "heads of width 64")),
        "n_layers": n_layers,
        "max_seq_len": int(pick("max_seq_len", int(positions.shape[0]) if positions is not None else cos_rows, 256,
                                "the published length")),
        "rope_base": float(pick("rope_base", base, 10000.0, "the published base")),
        "dropout": float(pick("dropout", None, 0.1, "the published rate; of no matter outside training")),
    }
    if classifier:
        config["num_classes"] = int(kept["classifier.3.weight"].shape[0])
    if baseline:
        return config

    rbf = any(".rbf_mix." in n for n in kept)
    own_ffn = any(".dct_mix.ffn." in n for n in kept)
    learned = any(".router.gate_proj." in n for n in kept)
    if learned and not options.routing_mode and "routing_mode" not in cfg:
        raise Refused("the file has learned routers and does not say which kind: give --routing-mode soft or hard")
    mode = pick("routing_mode", None, "threshold", "no learned router in the file")
    if learned != (mode in ("soft", "hard")):
        raise Refused(f"routing_mode {mode}, but the file {'has' if learned else 'has no'} learned routers")
    low, high = PUBLISHED_TAU.get(d_model, (None, None))
    if mode == "threshold" and low is None and not {"tau_low", "tau_high"} <= cfg.keys() | {
            k for k in ("tau_low", "tau_high") if getattr(options, k) is not None}:
        raise Refused(f"the thresholds are not in the file and none are published for width {d_model}: "
                      "give --tau-low and --tau-high")
    config |= {
        "architecture": "v3" if positions is None else "v1" if rbf or own_ffn else "v2",
        "layer_variant": "dct_rbf_attn" if rbf else "dct_attn",
        "dct_norm": "reference",
        "kv_scope": "all",
        "routing_mode": mode,
        "estimator": "straight_through",
        "use_meta_router": any("meta_router." in n for n in kept),
        "meta_pool": "batch",
        "use_collapse_reg": bool(cfg.get("use_collapse_reg", False)),
        "collapse_reg_detached": True,
        "lambda_reg": float(cfg.get("lambda_reg", 0.01)),
    }
    if mode == "threshold":
        config["tau_low"] = float(pick("tau_low", None, low, "published for this width"))
        config["tau_high"] = float(pick("tau_high", None, high, "published for this width"))
    if rbf:
        config["rbf_gamma"] = float(cfg.get("rbf_gamma", 1.0))
        config["n_random_features"] = int(next(t for n, t in kept.items() if n.endswith("rbf_mix.omega")).shape[1])
        config["rbf_causal"] = False
    return config


def load(path, trust):
    import torch
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # an old torch, or a pickle that holds more than tensors and numbers
        if not trust:
            raise Refused(f"{path} cannot be read as plain weights ({str(problem).splitlines()[0][:200]}); a pickle can run "
                          "any code: if you trust its source, add --trust") from problem
        return torch.load(path, map_location="cpu", weights_only=False)


def convert(path, out, options, say=lambda line: print(line, file=sys.stderr)):
    from safetensors.torch import save_file
    checkpoint = load(path, options.trust)
    if not isinstance(checkpoint, dict):
        raise Refused(f"{path}: expected a dictionary, found {type(checkpoint).__name__}")
    state = checkpoint.get("model", checkpoint)
    cfg = {k: v for k, v in (checkpoint.get("cfg") or {}).items() if isinstance(v, (bool, int, float, str))}
    kept = kept_tensors(state)
    if any("_cls_head_" in n for n in state):
        say("left out: classification heads of the authors' mixed training, which read raw embeddings")
    config = config_of(state, kept, cfg, options, say)
    os.makedirs(out, exist_ok=True)
    # save_file refuses tensors that share memory or have gaps; clone makes each its own block
    save_file({n: t.detach().clone().contiguous() for n, t in kept.items()},
              os.path.join(out, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(out, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
        file.write("\n")
    count = sum(t.numel() for n, t in kept.items() if not n.endswith("omega"))
    trained = "".join(f", {k} {checkpoint[k]}" for k in ("step", "val_ppl") if k in checkpoint)
    say(f"{out}: {config['model_type']}, {count:,} parameters in {len(kept)} tensors{trained}")
    return config


def fake_state(torch, d, heads, layers, vocab, length):
    """A checkpoint's tensors in the authors' naming, random."""
    state = {"token_emb.weight": torch.randn(vocab, d)}
    def linear(name, rows, columns):
        state[name + ".weight"], state[name + ".bias"] = torch.randn(rows, columns), torch.zeros(rows)
    def norm(name):
        state[name + ".weight"], state[name + ".bias"] = torch.ones(d), torch.zeros(d)
    linear("meta_router.gate_proj", 1, d)
    inv_freq = 1.0 / (10000.0 ** (torch.arange(0, d // heads, 2).float() / (d // heads)))
    for i in range(layers):
        at = f"layers.{i}."
        if i < layers - 1:
            state[at + "dct_mix.w"] = torch.ones(d)
            norm(at + "dct_mix.norm")
        if i > 0:
            linear(at + "attn.qkv", 3 * d, d)
            linear(at + "attn.out_proj", d, d)
            norm(at + "attn.norm")
            state[at + "attn.rope.inv_freq"] = inv_freq
            table = torch.outer(torch.arange(length).float(), inv_freq).repeat(1, 2)
            state[at + "attn.rope.cos_cache"], state[at + "attn.rope.sin_cache"] = table.cos(), table.sin()
        linear(at + "ffn.0", 4 * d, d)
        linear(at + "ffn.3", d, 4 * d)
        norm(at + "ffn_norm")
    norm("norm")
    state["lm_head.weight"] = state["token_emb.weight"]
    return state


def self_test():
    import tempfile
    import torch
    from safetensors.torch import load_file
    state = fake_state(torch, d=16, heads=2, layers=3, vocab=11, length=8)
    options = parser().parse_args(["in", "out", "--tau-low", "0.8", "--tau-high", "0.9"])
    with tempfile.TemporaryDirectory() as folder:
        path, out = os.path.join(folder, "fake.pt"), os.path.join(folder, "out")
        torch.save({"step": 3, "model": state, "val_ppl": 9.5, "cfg": {"vocab_size": 11, "routing_mode": "threshold"}}, path)
        config = convert(path, out, options)
        tensors = load_file(os.path.join(out, "model.safetensors"))
        with open(os.path.join(out, "config.json"), encoding="utf-8") as file:
            assert json.load(file) == config
    expected = {"model_type": "chiar_former", "vocab_size": 11, "d_model": 16, "n_heads": 2, "n_layers": 3, "max_seq_len": 8,
                "rope_base": 10000.0, "dct_norm": "reference", "meta_pool": "batch", "routing_mode": "threshold",
                "tau_low": 0.8, "tau_high": 0.9, "use_meta_router": True, "architecture": "v3"}
    wrong = {k: config.get(k) for k, v in expected.items() if config.get(k) != v}
    assert not wrong, wrong
    assert set(tensors) == {n for n in state if ".rope." not in n and n != "lm_head.weight"}
    assert all(torch.equal(tensors[n], state[n]) for n in tensors)
    try:
        kept_tensors(state | {"layers.0.stranger": torch.zeros(1)})
        raise AssertionError("an unknown tensor was accepted")
    except Refused as refusal:
        assert "stranger" in str(refusal)
    print("self-test passed")


def parser():
    p = argparse.ArgumentParser(description="CHIAR-Former .pt checkpoint -> config.json + model.safetensors")
    p.add_argument("checkpoint", nargs="?")
    p.add_argument("out", nargs="?", help="folder to write")
    p.add_argument("--n-heads", type=int)
    p.add_argument("--max-seq-len", type=int)
    p.add_argument("--routing-mode", choices=["threshold", "soft", "hard"])
    p.add_argument("--tau-low", type=float)
    p.add_argument("--tau-high", type=float)
    p.add_argument("--trust", action="store_true", help="unpickle a file that is more than weights: runs code from it")
    p.add_argument("--self-test", action="store_true", help="write a tiny checkpoint, convert it, compare")
    return p


def main():
    options = parser().parse_args()
    try:
        if options.self_test:
            self_test()
        elif not options.checkpoint or not options.out:
            parser().error("a checkpoint and a folder are needed")
        else:
            convert(options.checkpoint, options.out, options)
    except ImportError as problem:
        sys.exit(f"pt_to_safetensors: {problem.name} is not installed (pip install torch safetensors)")
    except (Refused, OSError) as problem:
        sys.exit(f"pt_to_safetensors: {problem}")


if __name__ == "__main__":
    main()
