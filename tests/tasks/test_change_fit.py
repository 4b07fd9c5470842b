"""M2CD is trained by its configuration, in two stages, and goes on where it was stopped."""

import json

import pytest

from geomoe.cli.main import main
from geomoe.models import load
from geomoe.tasks.checkpoint import read_checkpoint
from geomoe.tasks.fit import fit
from tests.data.test_dates import write_pair

OPTIONS = "{widths: [8, 12], mixed: [1, 2], blocks: 1, head: 8, optical: second}"


def train(root, out, *more):
    fit(
        [
            "--config=change_m2cd", f"--data.root={root}", "--data.buffer=4", "--data.patch=32",
            "--data.batch_size=2", "--data.steps_per_epoch=4", "--trainer.max_steps=12",
            f"--model.options={OPTIONS}", f"--checkpoint.dirpath={out}",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


@pytest.mark.slow
def test_it_learns_in_two_stages_and_resumes_to_the_same_numbers(tmp_path, capsys):
    root = tmp_path / "pairs"
    for seed, name in enumerate("ab"):
        write_pair(root, name, size=(48, 90), seed=seed)
    stop = ("--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/oa",
            "--trainer.callbacks.mode=max", "--trainer.callbacks.stopping_threshold=0")  # fmt: skip
    train(root, tmp_path / "whole")
    said = capsys.readouterr().err
    assert "stage experts, steps 1 to 8" in said
    assert "stage guided, steps 9 to 12" in said
    train(root, tmp_path / "cut", *stop)
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 4
    train(root, tmp_path / "cut", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    whole, cut = (load(str(tmp_path / name / "last.safetensors")) for name in ("whole", "cut"))
    assert whole.hash == cut.hash
    assert dict(whole.contract.sensors) == {"before": 1, "after": 3}
    assert whole.model.guided, "as it was last"
    best = tmp_path / "whole" / "best.safetensors"
    main(["evaluate", "--model", str(best), "--data", str(root), "--json", "-"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["by_class"]) == {"unchanged", "changed"}
    assert {"f1", "iou", "kappa"} <= set(found["overall"]["scores"])
