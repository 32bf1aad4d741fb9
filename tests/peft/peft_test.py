#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# tests/peft/peft_test.py: adapters of PEFT read by the program, adapters of the program read by PEFT, equal logits
#   peft_test.py SPECTRAL        exits with 77 (skipped) where PEFT, Transformers or PyTorch are absent
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as missing:
    print("skipped:", missing)
    sys.exit(77)

torch.manual_seed(0)
spectral = sys.argv[1]
work = pathlib.Path(tempfile.mkdtemp())
base, ids = work / "base", torch.randint(0, 300, (2, 11))
save_file({"ids": ids}, work / "ids.safetensors")


def run(*arguments, refused=False):
    done = subprocess.run([spectral, *map(str, arguments)], capture_output=True, text=True)
    assert (done.returncode != 0) == refused, done.stderr
    return done.stderr


def make_base():
    config = transformers.Qwen2Config(vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
                                      num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, eos_token_id=0)
    transformers.Qwen2ForCausalLM(config).save_pretrained(base)
    lines = [{"messages": [{"role": "user", "content": f"What is {n} and {n}?"}, {"role": "assistant", "content": f"It is {2 * n}."}],
              "step_type": "planning"} for n in range(40)]
    (work / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (work / "text.txt").write_text("What is one and two? It is three, as ever.\n" * 50)
    run("tokenizer", "train", "--train", work / "text.txt", "--vocab", "300", "--pattern", "qwen2", "--out", base / "tokenizer.json",
        "--special", "<|endoftext|>", "<|im_start|>", "<|im_end|>")


def backbone():
    return transformers.Qwen2ForCausalLM.from_pretrained(base, dtype=torch.float64)


def ours(model, *adapter):
    run("logits", "--model", model, *adapter, "--ids", work / "ids.safetensors", "--out", work / "out.safetensors", "--dtype", "f64")
    return load_file(work / "out.safetensors")["logits"]


def same(name, got, want):
    # Transformers computes norms, rotary tables and softmax in float inside a float64 model
    error = ((got - want).norm() / want.norm()).item()
    print(f"{name}: {error:.1e}")
    assert error < 1e-5, name


def from_peft():
    adapters = {
        "list": dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
        "regular expression, rsLoRA": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=r".*\.(self_attn\.[qv]_proj|mlp\.down_proj)"),
        "all-linear, rank and alpha patterns": dict(r=4, lora_alpha=8, target_modules="all-linear", rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.up_proj": 3},
                                                    alpha_pattern={"layers.0.self_attn.v_proj": 5}),
        "excluded modules, some blocks": dict(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], exclude_modules=["up_proj"],
                                              layers_to_transform=[0, 2]),
    }
    for name, options in adapters.items():
        model = peft.get_peft_model(backbone(), peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **options)).double()
        folder = work / "from_peft" / name.split()[0].strip(",")
        model.save_pretrained(folder)
        want = model.eval()(ids).logits.detach()
        same("from PEFT, " + name, ours(base, "--adapter", folder), want)
        merged = work / "merged" / folder.name
        run("merge", "--model", base, "--adapter", folder, "--out", merged, "--dtype", "f64")
        same("  merged here, read by Transformers", transformers.Qwen2ForCausalLM.from_pretrained(merged, dtype=torch.float64)(ids).logits.detach(), want)
    model = peft.get_peft_model(backbone(), peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], use_dora=True))
    model.save_pretrained(work / "dora")
    said = run("logits", "--model", base, "--adapter", work / "dora", "--ids", work / "ids.safetensors", "--out", work / "out.safetensors", refused=True)
    assert "use_dora" in said, said


def to_peft():
    tune = ["finetune", "--model", base, "--train", work / "data.jsonl", "--steps", 3, "--batch", 2, "--lr", "1e-2", "--max-length", 128, "--quiet"]
    for name, options in {
        "q, k, v, o, with gates": ["--objective", "mean=1"],
        "rsLoRA on the feed-forward": ["--tune", "adapters", "--rslora", "--lora-rank", 3, "--lora-targets", "gate_proj", "up_proj", "down_proj"],
    }.items():
        out = work / "to_peft" / name.split()[0].strip(",")
        run(*tune, "--out", out, *options)
        plain = backbone()
        without = plain(ids).logits.detach()
        model = peft.PeftModel.from_pretrained(plain, out / "last").double().eval()
        loaded = {key for key in peft.get_peft_model_state_dict(model)}
        assert loaded == set(load_file(out / "last" / "adapter_model.safetensors")), "tensor names"
        got = model(ids).logits.detach()
        assert (got - without).norm() > 1e-3 * without.norm(), "the adapter does nothing"
        same("to PEFT, " + name, got, ours(base, "--adapter", out / "last"))


print(f"PEFT {peft.__version__}, Transformers {transformers.__version__}, PyTorch {torch.__version__}")
make_base()
from_peft()
to_peft()
