"""Do experts in a trunk earn their keep? Small networks of equal active cost, on validation images.

    python benchmarks/super_resolution/experts.py --data FOLDER_OF_UCMERCED --seeds 0 1 2 --out runs/experts

A trunk of 6 residual blocks (norm, 3x3 convolution to twice the width, GELU, 1x1 convolution back)
upsamples by 4, so small that 5,000 steps bring it near what it can hold: ``wide``, four times the work, shows
what there is to gain. The other arms do the work of ``plain`` on each pixel, but for routers:

- ``gated``: the block's result times a learned gate of each pixel. What experts are measured against.
- ``top1``: one of four experts for each pixel by the mean of its 17 x 17 surroundings, loads evened by a
  bias.
- ``merged``: four experts' weights averaged for each image before they are used (SMEAR, Muqeeth et al.
  2023).
- ``annealed``: four experts weighed by a softmax that sharpens for 70 % of the run, then the best alone,
  times a gate (dense-to-sparse gating, Nie et al. 2021). It costs four times as much to train.

Experts are computed densely and masked: what is measured here is quality. Each run writes its figures
to ``--out`` and is not run again; the table gives the mean over seeds of the gain over bicubic upsampling,
and the difference to ``gated`` with a 95 % interval. Training images alone are used, 63 of them to score.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomoe.data.images import read_image
from geomoe.data.super_resolution.degradation import get_degradation, interpolated
from geomoe.data.super_resolution.pairs import ImagePairs, PatchStream, mirror_to
from geomoe.data.ucmerced import ucmerced_files
from geomoe.evaluation.statistics import mean_interval
from geomoe.metrics.protocol import get_protocol

SCALE, EXPERTS, PATCH, BATCH = 4, 4, 24, 8
REACH = 8  # of a pixel's surroundings, each way


class Block(nn.Module):
    """A residual block whose inner channels belong to one expert, or in equal parts to several."""

    def __init__(self, dim: int, experts: int = 1) -> None:
        super().__init__()
        self.experts, self.hidden = experts, 2 * dim
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Conv2d(dim, self.hidden * experts, 3, padding=1)
        self.down = nn.Conv2d(self.hidden * experts, dim, 1)
        self.down.weight.data *= 0.5 * experts**0.5
        parts = self.up.weight.data.view(experts, self.hidden, dim, 3, 3)
        parts.copy_(parts[:1] + 0.1 * (parts - parts[:1]))  # experts begin nearly alike

    def forward(self, x: Tensor, share: float) -> Tensor:
        """``[B, C, H, W]`` to the same, after ``share`` of the run."""
        n = self.norm(x.permute(0, 2, 3, 1))
        return x + self.residual(n.permute(0, 3, 1, 2), n.float(), share)

    def residual(self, n: Tensor, rows: Tensor, share: float) -> Tensor:
        """Of the normalised image, ``[B, C, H, W]`` and ``[B, H, W, C]``."""
        out: Tensor = self.down(F.gelu(self.up(n)))
        return out

    def weighed(self, n: Tensor, weights: Tensor) -> Tensor:
        """Experts times ``weights`` ``[B, H, W, E]``, added."""
        hidden = F.gelu(self.up(n)).unflatten(1, (self.experts, self.hidden))
        out: Tensor = self.down((hidden * weights.permute(0, 3, 1, 2)[:, :, None].to(n.dtype)).flatten(1, 2))
        return out


class Gated(Block):
    """One expert times a gate in (0, 2)."""

    def __init__(self, dim: int, experts: int = 1) -> None:
        super().__init__(dim, experts)
        self.gate = nn.Linear(dim, 1)

    def residual(self, n: Tensor, rows: Tensor, share: float) -> Tensor:
        """One result for each pixel, times its gate."""
        return self.weighed(n, 2 * torch.sigmoid(self.gate(rows)).expand(-1, -1, -1, self.experts))


class Top1(Block):
    """The expert that suits a pixel's surroundings, times its gate."""

    bias: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EXPERTS)
        self.score = nn.Linear(dim, EXPERTS)
        self.register_buffer("bias", torch.zeros(EXPERTS))

    def residual(self, n: Tensor, rows: Tensor, share: float) -> Tensor:
        """The chosen expert's result, times its gate."""
        padded = F.pad(n.float(), (REACH,) * 4, mode="reflect")
        around = F.avg_pool2d(padded, 2 * REACH + 1, 1).permute(0, 2, 3, 1)
        gates = torch.sigmoid(self.score(around))
        chosen = F.one_hot((gates + self.bias).argmax(-1), EXPERTS).float()
        if self.training:
            load = chosen.mean((0, 1, 2))
            self.bias += 1e-3 * torch.sign(load.mean() - load)
        return self.weighed(n, 2 * gates * chosen)


class Merged(Block):
    """One expert for each image, its weights the average of all by what the image is."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EXPERTS)
        self.score = nn.Linear(dim, EXPERTS)

    def residual(self, n: Tensor, rows: Tensor, share: float) -> Tensor:
        """Of each image by the expert that was made for it."""
        mix = self.score(rows.mean((1, 2))).softmax(-1)
        images = [self._one(image[None], mine) for image, mine in zip(n, mix, strict=True)]
        return torch.cat(images)

    def _one(self, image: Tensor, mix: Tensor) -> Tensor:
        up = torch.einsum("e,ehcij->hcij", mix, self.up.weight.unflatten(0, (EXPERTS, self.hidden)))
        bias = mix @ self.up.bias.view(EXPERTS, -1)  # type: ignore[union-attr]
        hidden = F.gelu(F.conv2d(image, up.to(image.dtype), bias.to(image.dtype), padding=1))
        down = torch.einsum(
            "e,ceh->ch", mix, self.down.weight[..., 0, 0].unflatten(1, (EXPERTS, self.hidden))
        )
        return F.conv2d(hidden, down[..., None, None].to(image.dtype), self.down.bias.to(image.dtype))  # type: ignore[union-attr]


class Annealed(Gated):
    """All experts by a softmax that sharpens, at last the best alone."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, EXPERTS)
        self.score = nn.Linear(dim, EXPERTS)

    def residual(self, n: Tensor, rows: Tensor, share: float) -> Tensor:
        """All experts' results, ever less of all but the best."""
        scores = self.score(rows)
        if share < 0.7:
            weights = (scores * 10 ** (1.3 * share / 0.7)).softmax(-1)
        else:
            weights = F.one_hot(scores.argmax(-1), EXPERTS).float()
        return self.weighed(n, 2 * torch.sigmoid(self.gate(rows)) * weights)


ARMS: dict[str, Callable[[int], Block]] = {
    "plain": Block,
    "gated": Gated,
    "top1": Top1,
    "merged": Merged,
    "annealed": Annealed,
    "wide": lambda dim: Block(dim, EXPERTS),
}


class Network(nn.Module):
    """Blocks between two convolutions, and a pixel shuffle, added to bicubic interpolation."""

    def __init__(self, make: Callable[[int], Block], dim: int, blocks: int) -> None:
        super().__init__()
        self.shallow = nn.Conv2d(3, dim, 3, padding=1)
        self.blocks = nn.ModuleList(make(dim) for _ in range(blocks))
        self.deep = nn.Conv2d(dim, dim, 3, padding=1)
        self.last = nn.Conv2d(dim, 3 * SCALE**2, 3, padding=1)
        self.last.weight.data *= 0.01
        self.last.bias.data *= 0.01  # type: ignore[union-attr]

    def forward(self, x: Tensor, share: float = 1.0) -> Tensor:
        """``[B, 3, H, W]`` to ``[B, 3, 4H, 4W]``, after ``share`` of the run."""
        shallow = y = self.shallow(x - 0.5)
        for block in self.blocks:
            y = block(y, share)
        residual = F.pixel_shuffle(self.last(self.deep(y) + shallow), SCALE)
        return residual + F.interpolate(x, scale_factor=SCALE, mode="bicubic")


def train(network: Network, pairs: ImagePairs, seed: int, steps: int) -> Network:
    """Adam by a cosine from 1e-3 on L1; gives the moving average of the weights."""
    optimiser = torch.optim.Adam(network.parameters(), 1e-3, betas=(0.9, 0.99))
    averaged = copy.deepcopy(network)
    stream = PatchStream(pairs, PATCH, SCALE, seed, 0, steps * BATCH)
    for step in range(steps):
        cut = [stream[step * BATCH + i] for i in range(BATCH)]
        low, high = (torch.stack([sample[key] for sample in cut]) for key in ("image", "target"))
        for group in optimiser.param_groups:
            group["lr"] = 5e-4 * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * step / steps))
        with torch.autocast("cpu", torch.bfloat16):
            result = network(low.to(memory_format=torch.channels_last), step / steps)
        optimiser.zero_grad()
        F.l1_loss(result.float(), high).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        kept = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), 1 - kept)
    averaged.load_state_dict(dict(network.named_buffers()), strict=False)  # averages would lag behind
    return averaged


def gains(network: Network, pairs: ImagePairs) -> list[float]:
    """PSNR over that of bicubic upsampling, dB, of every image."""
    rules, found = get_protocol("mfg_hmoe"), []
    network.eval()
    with torch.inference_mode():
        for low, high in (pairs[i] for i in range(len(pairs))):
            ours, _ = rules.score(network(low[None])[0], high, SCALE)
            base, _ = rules.score(interpolated(low[None], SCALE)[0], high, SCALE)
            found.append(ours - base)
    return found


def main() -> None:
    """Parse the arguments, train what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/experts"))
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--blocks", type=int, default=6)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    degradation = get_degradation("bilinear")
    fit = [mirror_to(read_image(path, 3), PATCH * SCALE) for path in ucmerced_files(args.data, "fit")]
    kept = [read_image(path, 3) for path in ucmerced_files(args.data, "validation")]
    pairs, scored = ImagePairs(fit, SCALE, degradation), ImagePairs(kept, SCALE, degradation)
    found: dict[str, list[list[float]]] = {arm: [] for arm in args.arms}
    parameters = {}
    for seed in args.seeds:
        for arm in args.arms:
            torch.manual_seed(seed)
            network = Network(ARMS[arm], args.width, args.blocks).to(memory_format=torch.channels_last)
            parameters[arm] = sum(p.numel() for p in network.parameters())
            file = args.out / f"{arm}_{args.width}x{args.blocks}_{args.steps}_{seed}.json"
            if not file.exists():
                began = time.monotonic()
                result = gains(train(network, pairs, seed, args.steps), scored)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(result))
                part.replace(file)
                mean = sum(result) / len(result)
                print(f"{arm}, seed {seed}: {mean:+.3f} dB in {time.monotonic() - began:.0f} s", flush=True)
            found[arm].append(json.loads(file.read_text()))
    print("\n| arm | parameters | gain, dB | over gated, 95 % interval |\n|---|---|---|---|")
    for arm, runs in found.items():
        scores = torch.tensor(runs, dtype=torch.float64)
        over = "" if arm == "gated" or "gated" not in found else _over(scores, torch.tensor(found["gated"]))
        print(f"| `{arm}` | {parameters[arm]:,} | {scores.mean():+.3f} | {over} |")


def _over(scores: Tensor, gated: Tensor) -> str:
    interval = mean_interval((scores - gated).numpy())
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


if __name__ == "__main__":
    main()
