"""The tasks that ship; each registers itself beside its data."""

from geomoe.tasks import (  # noqa: F401
    classification_data,
    incremental_data,
    masked_autoencoding_data,
    segmentation_data,
    super_resolution_data,
)
from geomoe.tasks.registry import FAMILIES, Family, family, register

__all__ = ["FAMILIES", "USUAL", "Family", "family", "register"]

USUAL = FAMILIES["super_resolution"]
"""What a configuration trains that names no classes."""
