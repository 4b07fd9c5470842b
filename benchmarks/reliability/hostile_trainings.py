"""What a training may be given that is not what it seems, for ``attack_training.py``."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import yaml
from attack import Kind, Tries
from nights import told
from PIL import Image
from safetensors.torch import save_file
from trainings import Trainings, ended

from geomoe.models import load

__all__ = ["GIVEN"]

_CLASSES = (
    "os.system", "subprocess.Popen", "subprocess.run", "builtins.exec", "builtins.eval", "shutil.rmtree",
    "pathlib.Path", "geomoe.tasks.weights.subprocess.Popen", "geomoe.cli.main.os.system", "torch.load",
    "lightning.pytorch.callbacks.callback.Callback.__init__.__globals__", "torch.hub.load", "no.such.Class",
    "importlib.import_module", "", "x", 7, None,
)  # fmt: skip
_NUMBERS = (
    "model.learning_rate", "model.warmup", "model.balance_weight", "model.balance_until", "data.patch_size",
    "data.batch_size", "data.steps_per_epoch", "data.validation", "data.tolerance", "data.workers",
    "data.scale", "data.bands", "data.max_pixels", "ema.decay", "seed_everything", "trainer.max_steps",
    "trainer.accumulate_grad_batches", "trainer.limit_val_batches", "trainer.limit_train_batches",
    "trainer.gradient_clip_val", "trainer.devices", "trainer.log_every_n_steps",
)  # fmt: skip


def images(folder: Path, args: argparse.Namespace, rng: np.random.Generator) -> Tries:
    """Alone among good ones: said in one line, and left out where that is asked for."""
    trainings = Trainings(folder)
    good = (trainings.images / "0.png").read_bytes()
    bad = trainings.images / "1.png"
    cases: list[Callable[[], object]] = [
        lambda: bad.write_bytes(b""),
        lambda: bad.write_bytes(b"no image"),
        lambda: bad.write_bytes(good[::-1]),
        lambda: Image.new("L", (12_000, 12_000)).save(bad),
        lambda: Image.new("1", (30_000, 30_000)).save(bad),
        lambda: Image.new("I;16", (40, 40)).save(bad),
        lambda: Image.new("1", (40, 40)).save(bad),
        lambda: Image.new("CMYK", (40, 40)).save(bad, "JPEG"),
        *(lambda n=int(n): bad.write_bytes(good[:n]) for n in rng.integers(8, len(good) - 20, args.tries)),
    ]
    for make in cases[:: args.every]:
        make()
        status = ended(trainings.start())
        wrong = trainings.refused(status, (1,)) + told(("not named", "1.png" in trainings.text))
        status = ended(trainings.start(None, "--skip-corrupt"))
        yield wrong + told((f"skipped: status {status}: {trainings.text[-300:]}", status == 0))
        shutil.rmtree(trainings.out)


def configurations(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Code where a class is meant, wherever a class is meant; endless and odd YAML."""
    trainings = Trainings(folder)
    mark, path = folder / "mark", folder / "odd.yaml"
    touch = {"args": f"touch {mark}", "command": f"touch {mark}"}
    places: tuple[Callable[[object], object], ...] = (
        lambda c: {"trainer": {"callbacks": [c]}}, lambda c: {"trainer": {"logger": c}},
        lambda c: {"trainer": {"strategy": c}}, lambda c: {"trainer": {"plugins": [c]}},
        lambda c: {"trainer": {"profiler": c}}, lambda c: {"trainer": {"accelerator": c}},
        lambda c: {"optimizer": c},
    )  # fmt: skip
    found = [place({"class_path": name, "init_args": touch}) for name in _CLASSES for place in places]
    calls = "lightning.pytorch.callbacks.LambdaCallback"
    for name in filter(None, _CLASSES):
        found.append({"trainer": {"callbacks": [{"class_path": calls, "init_args": {"setup": name}}]}})
    doubled = "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    texts = [
        *map(yaml.safe_dump, found), "a0: &a0 [x, x]\n" + doubled, "a: &a [*a]\n", "[" * 100_000,
        "{a: " * 100_000, f"a: !!python/object/apply:os.system ['touch {mark}']\n", "a: 2001-99-99\n",
        "a: " + "9" * 10_000 + "\n", "\0", "\x1b[31m: 1\n", "&a : *b\n", "- 1\n", "'",
    ]  # fmt: skip
    for text in texts[:: args.every]:
        path.write_text(text)
        status = ended(trainings.start(None, f"--config={path}"))
        yield trainings.refused(status) + told(("it ran", not mark.exists()))
        shutil.rmtree(trainings.out, ignore_errors=True)


def options(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Of every number: too small, none, endless, and words."""
    trainings = Trainings(folder)
    cases = [(name, value) for name in _NUMBERS for value in ("-2", "nan", "[]", "one")]
    for name, value in cases[:: args.every]:
        status = ended(trainings.start(None, f"--{name}={value}"))
        yield trainings.refused(status) and f"{name}={value}: {trainings.refused(status)}"
        shutil.rmtree(trainings.out, ignore_errors=True)


def cards(folder: Path, args: argparse.Namespace, _: np.random.Generator) -> Tries:
    """Odd entries: what starts from such weights, scores or exports them."""
    trainings = Trainings(folder)
    loaded, path = load(str(trainings.weights)), folder / "odd.safetensors"
    entries = asdict(loaded.card)
    odd = (None, -1, True, [], [1], {"a": [{}]}, "x", float("nan"), "\x1b[2J")
    cases = [{**entries, name: value} for name in entries for value in odd]
    for name in entries["config"]:
        cases += [{**entries, "config": {**entries["config"], name: value}} for value in odd]
    for number, card in enumerate(cases[:: args.every]):
        save_file(loaded.model.state_dict(), path, {"geomoe": json.dumps(card)})
        if number % 2:
            child = trainings.command(
                ["evaluate", f"--model={path}", "--scale=2", f"--data={trainings.images}"]
            )
        else:
            child = trainings.start(None, f"--model.start={path}", "--trainer.max_steps=2")
        status = ended(child)
        yield trainings.refused(status) if status else told(("\x1b", "\x1b[2J" not in trainings.text))
        shutil.rmtree(trainings.out, ignore_errors=True)


GIVEN: dict[str, Kind] = {
    "images": images, "configurations": configurations, "options": options, "cards": cards,
}  # fmt: skip
