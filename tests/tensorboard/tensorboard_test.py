#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/tensorboard/tensorboard_test.py: TensorBoard reads what `spectral train --tensorboard` writes.

usage: tensorboard_test.py SPECTRAL     (skipped, 77, where the tensorboard package is not there)
"""
import json, pathlib, subprocess, sys, tempfile

try:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
except ImportError:
    print("skipped: no tensorboard")
    sys.exit(77)

spectral = pathlib.Path(sys.argv[1]).resolve()
text = pathlib.Path(__file__).resolve().parents[2] / "README.md"
with tempfile.TemporaryDirectory() as folder:
    def run(*arguments):
        subprocess.run([spectral, *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    run("tokenizer", "train", "--train", text, "--vocab", "300", "--out", "tokenizer.json")
    run("train", "--out", "run", "--train", text, "--valid", text, "--tokenizer", "tokenizer.json", "--d-model", "16", "--heads", "2",
        "--layers", "3", "--time", "16", "--batch", "2", "--steps", "4", "--eval-every", "2", "--quiet", "--tensorboard", "events")
    events = EventAccumulator(str(pathlib.Path(folder, "events")))
    events.Reload()
    metrics = [json.loads(line) for line in pathlib.Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    for tag, lines in (("train", [m for m in metrics if "set" not in m]), ("valid", [m for m in metrics if m.get("set") == "valid"])):
        seen = [(e.step, e.value) for e in events.Scalars(f"loss/{tag}")]
        want = [(m["step"], m["loss"]) for m in lines if "loss" in m]
        assert len(want) > 1, f"{tag}: {len(want)} losses in metrics.jsonl"
        assert [s for s, _ in seen] == [s for s, _ in want], f"{tag}: steps {seen}, expected {want}"
        assert all(abs(a - b) < 1e-5 * b for (_, a), (_, b) in zip(seen, want)), f"{tag}: {seen}, expected {want}"
    print(f"{len(events.Tags()['scalars'])} scalars, losses of train and valid as in metrics.jsonl")
