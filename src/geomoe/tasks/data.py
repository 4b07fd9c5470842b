"""The data module of super-resolution training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from geomoe.data.degradation import get_degradation
from geomoe.data.images import find_images, read_image
from geomoe.data.pairs import ImagePairs, PatchStream, mirror_to
from geomoe.data.ucmerced import ucmerced_files, ucmerced_folder
from geomoe.errors import GeomoeError

__all__ = ["SuperResolutionData"]


class SuperResolutionData(pl.LightningDataModule):
    """Images held in memory, made small, and cut into patches.

    One epoch is ``steps_per_epoch`` optimiser steps; its patches depend on ``seed`` and the number
    of the epoch alone, so a run resumed at the end of an epoch sees what it would have seen.

    Args:
        root: folder of the images.
        layout: ``ucmerced`` (its training split, 63 images of which are kept for validation), ``folder``
            (every image or GeoTIFF below ``root``), or ``auto``, the one that ``root`` is.
        scale: 2, 3, 4 or 8.
        bands: channels.
        degradation: name of a :class:`geomoe.data.degradation.Degradation`.
        patch_size: side of a low-resolution patch; smaller training images are continued by mirroring.
        batch_size: patches in a step.
        steps_per_epoch: optimiser steps between two validations.
        validation: share of a folder's images kept for validation, at least one image.
        seed: of the stream of patches.
    """

    def __init__(
        self,
        root: str,
        layout: Literal["auto", "ucmerced", "folder"] = "auto",
        scale: int = 4,
        bands: int = 3,
        degradation: str = "bilinear",
        patch_size: int = 64,
        batch_size: int = 4,
        steps_per_epoch: int = 500,
        validation: float = 0.05,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["root"])
        self.root = Path(root)
        split = ucmerced_folder(self.root) is not None
        if layout == "auto":
            layout = "ucmerced" if split else "folder"
        if layout == "folder" and split:
            raise GeomoeError(
                f"{root} is UCMerced: all its images, with --data.layout folder, include those of its test "
                "split; leave the layout out, or point --data.root elsewhere"
            )
        self.layout, self.scale, self.bands = layout, scale, bands
        self.degradation = get_degradation(degradation)
        self.patch_size, self.batch_size, self.steps_per_epoch = patch_size, batch_size, steps_per_epoch
        self.validation, self.seed = validation, seed
        self._train: ImagePairs | None = None
        self._validation: ImagePairs | None = None

    def _files(self) -> tuple[list[Path], list[Path]]:
        if self.layout == "ucmerced":
            return ucmerced_files(self.root, "fit"), ucmerced_files(self.root, "validation")
        found = find_images(self.root)
        if len(found) == 1:
            raise GeomoeError(f"{self.root} holds one image; training wants at least two, one to validate on")
        every = max(2, round(1 / max(self.validation, 1e-6)))
        kept = found[every - 1 :: every] or found[-1:]
        return [path for path in found if path not in kept], kept

    def setup(self, stage: str | None = None) -> None:
        if self._train is None:
            train, validation = self._files()
            least = self.patch_size * self.scale
            images = [mirror_to(read_image(path, self.bands), least) for path in train]
            self._train = ImagePairs(images, self.scale, self.degradation)
            kept = [read_image(path, self.bands) for path in validation]
            self._validation = ImagePairs(kept, self.scale, self.degradation)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        assert self._train is not None
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        length = self.steps_per_epoch * self.batch_size
        stream = PatchStream(self._train, self.patch_size, self.scale, self.seed, epoch * length, length)
        return DataLoader(stream, self.batch_size, pin_memory=torch.cuda.is_available())

    def val_dataloader(self) -> DataLoader[tuple[Tensor, Tensor]]:
        assert self._validation is not None
        return DataLoader(self._validation, 1)
