"""The Lightning module that trains a super-resolution model."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from geomoe.data.degradation import upsample_bicubic
from geomoe.errors import expect
from geomoe.metrics.protocol import get_protocol
from geomoe.models.contract import ModelContract
from geomoe.models.registry import build
from geomoe.models.weights import Card, load_as
from geomoe.moe.balance import importance_loss, switch_loss
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.step import balance_loss, rebalance
from geomoe.tasks.compiled import compile_blocks
from geomoe.tasks.losses import LOSSES, check_losses
from geomoe.tasks.muon import Muon, matrices

__all__ = ["SuperResolution", "learning_rate_factor"]

BALANCE = {"importance": importance_loss, "switch": switch_loss}


def learning_rate_factor(
    share: float, schedule: Literal["step", "cosine"], milestones: tuple[float, ...], warmup: float
) -> float:
    """Factor on the learning rate after ``share`` (0 to 1) of the run."""
    if share < warmup:
        return share / warmup
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min((share - warmup) / (1 - warmup), 1.0)))
    return 0.5 ** sum(share >= milestone for milestone in milestones)


class SuperResolution(pl.LightningModule):
    """Training of a registered model.

    ``trace`` holds the plans of the last step, for :class:`geomoe.tasks.routing.RoutingMonitor`.

    The defaults are the recipe of MFG-HMoE: L1, Adam 2e-4, betas (0.9, 0.99), halved at 30, 50, 65, 70
    and 75 % of the run.

    Args:
        model: name in the registry.
        scale: 2, 3, 4 or 8.
        bands: channels.
        options: further configuration of the model.
        start: weights to start from, by name or path, instead of random ones: a model of this name and
            configuration.
        losses: weights of a sum, by the names of :data:`geomoe.tasks.losses.LOSSES`, such as
            ``{l1: 1.0, ssim: 0.1}``; L1 alone by default.
        learning_rate: of the optimiser.
        optimizer: ``adam``, or ``muon`` for the weights in the trunk's blocks, beside Adam for the others.
        betas: of Adam.
        schedule: ``step`` or ``cosine``.
        milestones: shares of the run at which ``step`` halves the learning rate.
        warmup: share of the run over which the learning rate rises from 0.
        balance: what keeps experts in use: a term of the loss (``importance``, ``switch``), or a bias on the
            choice alone (``bias``, loss-free).
        balance_weight: weight of the term, or rate of the bias.
        balance_until: share of the run after which balance rests, so that experts can settle.
        protocol: of the validation score.
        seed: of the initial weights and of stochastic depth.
        compile: the trunk's blocks, by torch.compile, while training; the weights are those of a model that
            is not compiled.
    """

    def __init__(
        self,
        model: str = "mfg_hmoe_light",
        scale: int = 4,
        bands: int = 3,
        options: dict[str, Any] | None = None,
        start: str | None = None,
        losses: dict[str, float] | None = None,
        learning_rate: float = 2e-4,
        optimizer: Literal["adam", "muon"] = "adam",
        betas: tuple[float, float] = (0.9, 0.99),
        schedule: Literal["step", "cosine"] = "step",
        milestones: tuple[float, ...] = (0.3, 0.5, 0.65, 0.7, 0.75),
        warmup: float = 0.0,
        balance: Literal["none", "importance", "switch", "bias"] = "none",
        balance_weight: float = 0.01,
        balance_until: float = 1.0,
        protocol: str = "mfg_hmoe",
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        expect(0 <= learning_rate < math.inf, "learning_rate", learning_rate, "0 or more")
        expect(all(0 <= beta < 1 for beta in betas), "betas", betas, "two numbers from 0 to below 1")
        expect(all(0 <= m <= 1 for m in milestones), "milestones", milestones, "shares of the run, 0 to 1")
        expect(0 <= warmup < 1, "warmup", warmup, "a share of the run, 0 to below 1")
        expect(0 <= balance_weight < math.inf, "balance_weight", balance_weight, "0 or more")
        expect(0 <= balance_until <= 1, "balance_until", balance_until, "a share of the run, 0 to 1")
        expect(0 <= seed < 2**32, "seed", seed, "a whole number from 0 to 4294967295")
        self.save_hyperparameters()
        self.seed = seed
        torch.manual_seed(seed)
        configuration = {"scale": scale, "bands": bands, **(options or {})}
        self.trace = RoutingTrace()
        self.start: Card | None = None
        if start is None:
            built = build(model, configuration)
        else:
            loaded = load_as(start, model, configuration)
            built, self.start = loaded.model.train(), loaded.card
        self.model: torch.nn.Module = built.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name, self.scale = model, scale
        self.losses = check_losses({"l1": 1.0} if losses is None else losses)
        self.learning_rate, self.optimizer, self.betas = learning_rate, optimizer, betas
        self.schedule, self.milestones, self.warmup = schedule, milestones, warmup
        self.balance, self.balance_weight, self.balance_until = balance, balance_weight, balance_until
        self.protocol = get_protocol(protocol)
        self.protocol.check_bands(bands)
        self.compiled = compile
        self._traces: list[RoutingTrace] = []
        """Of the batches since the last optimiser step."""
        self._scores: list[tuple[float, ...]] = []

    def setup(self, stage: str) -> None:
        # After callbacks have been set up: a copy of the model that they hold is not compiled.
        if self.compiled and stage == "fit":
            compile_blocks(self.model, self.trainer.strategy.root_device.type)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out

    def on_train_epoch_start(self) -> None:
        # Checkpoints hold no state of the generator, from which stochastic depth draws: a resumed run has to
        # find it where an uninterrupted one does. Processes draw apart from each other.
        torch.manual_seed(self.seed + self.current_epoch + (self.global_rank << 32))

    def _run(self, low: Tensor, known: Sequence[Tensor], trace: RoutingTrace) -> Tensor:
        """The model's result; ``known`` holds what is known of the images, if the data say it."""
        contract = self.model.contract
        assert isinstance(contract, ModelContract)
        informed = {"known": known[0]} if known and contract.informed else {}
        result: Tensor = self.model(low, trace=trace, **informed)
        return result

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        low, high, *known = batch
        trace = RoutingTrace()
        result = self._run(low, known, trace)
        terms = {name: LOSSES[name](result, high) for name in self.losses}
        self.log_dict({f"train/{name}": term for name, term in terms.items()}, prog_bar=True)
        loss = torch.stack([weight * terms[name] for name, weight in self.losses.items()]).sum()
        if self.balance in BALANCE and self._balances():
            loss = loss + balance_loss(trace, {BALANCE[self.balance]: self.balance_weight})
        self.trace = trace
        return loss

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.balance != "bias":
            return
        self._traces.append(self.trace.detach())
        if (batch_idx + 1) % self.trainer.accumulate_grad_batches and not self.trainer.is_last_batch:
            return
        if self._balances():
            rebalance(self._traces, self.balance_weight)
        self._traces.clear()

    def _balances(self) -> bool:
        return self.global_step < self.balance_until * int(self.trainer.estimated_stepping_batches)

    def _logs_now(self) -> bool:
        # Lightning logs after a step, so that the last of every n is shown.
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (self.global_step + 1) % every == 0

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self._logs_now():
            grads = [
                p.grad.norm()
                for n, p in self.model.named_parameters()
                if "router" in n and p.grad is not None
            ]
            norm = torch.stack(grads).norm() if grads else torch.zeros(())
            self.log("routing/router_gradient_norm", norm)

    def on_validation_epoch_start(self) -> None:
        self._scores.clear()

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        low, high, *known = batch
        if not len(low):
            return  # other processes have an image left, this one has none
        # Images of any size would each be compiled for.
        eager = torch.compiler.set_stance("force_eager") if self.compiled else contextlib.nullcontext()
        with torch.autocast(self.device.type, enabled=False), eager:
            self.trace = RoutingTrace()
            result = self._run(low, known, self.trace)
        psnr, ssim = self.protocol.score(result[0].float(), high[0], self.scale)
        base, _ = self.protocol.score(upsample_bicubic(low, self.scale)[0], high[0], self.scale)
        self._scores.append((psnr, ssim, psnr - base, 1.0))

    def on_validation_epoch_end(self) -> None:
        # Summed over all processes, of which one may have seen an image more than another.
        mine = [sum(column) for column in zip(*self._scores, strict=True)] or [0.0] * 4
        total = self.trainer.strategy.reduce(torch.tensor(mine, device=self.device), reduce_op="sum")
        assert isinstance(total, Tensor)
        psnr, ssim, gain = total[:3] / total[3]
        self.log_dict({"val/psnr": psnr, "val/ssim": ssim, "val/gain": gain}, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer: torch.optim.Optimizer
        if self.optimizer == "muon":
            optimizer = Muon(trained, matrices(self.model), self.learning_rate, self.betas)
        else:
            optimizer = torch.optim.Adam(trained, self.learning_rate, self.betas)
        total = max(int(self.trainer.estimated_stepping_batches), 1)

        def factor(step: int) -> float:
            return learning_rate_factor(step / total, self.schedule, tuple(self.milestones), self.warmup)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
