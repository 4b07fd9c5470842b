"""A benchmark of tiny models on made images."""

import signal

import yaml

from geomoe.tasks.fit import fit

TINY = {"embed_dim": 8, "depths": [1, 1], "heads": 2, "window": 4, "squeeze": 4, "width": 4,
        "expert_width": 4, "router_width": 4, "experts_per_group": 2}  # fmt: skip
FILE = {
    "title": "Tiny models",
    "flagship": "routed",
    "scale": 2,
    "seeds": [0, 1],
    "train": "train",
    "test": "test",
    "recipe": {
        "trainer": {"max_steps": 6, "accelerator": "cpu", "enable_progress_bar": False,
                    "enable_model_summary": False, "log_every_n_steps": 1},
        "model": {"learning_rate": 1.0e-3},
        "data": {"patch_size": 8, "batch_size": 2, "steps_per_epoch": 3},
    },
    "arms": {
        "routed": {"model": "mfg_hmoe_light", "options": TINY, "paper": {"psnr": 29.2, "ssim": 0.79}},
        "dense": {"model": "mfg_hmoe_light", "options": {**TINY, "head": "dense"}, "paper": {"psnr": 29.3}},
    },
}  # fmt: skip


def written(folder, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**FILE, **changes}, sort_keys=False))
    return path


def here(config, checkpoint):
    """Training without a process of its own, which takes seconds to start."""
    before = signal.getsignal(signal.SIGINT)
    fit([f"--config={config}", *([] if checkpoint is None else [f"--ckpt_path={checkpoint}"])])
    signal.signal(signal.SIGINT, before)
