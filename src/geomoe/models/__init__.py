"""Models: one file for each published system, the registry, and weights with their cards."""

from geomoe.models import mfg_hmoe as _mfg_hmoe  # noqa: F401  (registers itself)
from geomoe.models.contract import ModelContract
from geomoe.models.registry import list_models

__all__ = ["ModelContract", "list_models"]
