"""Models: one file for each published system, the registry, and weights with their cards.

Imports torch and safetensors; no rasterio, no Lightning.
"""

from geomoe.models import (  # noqa: F401  (they register themselves)
    amoed,
    budget_moe,
    convnext,
    dmoe_vit,
    dmrs,
    gram,
    hyper_trans_xnet,
    kong_fusion,
    land_moe,
    m2cd,
    mamba_moe,
    mamol,
    mfiae,
    mixture_rs,
    mobile_moe,
    mslora_net,
    radar_fusion,
    siamese_moe,
    siamese_unet,
    sparse_former,
    stacked_moe,
    super_resolution,
    umoe_mamba,
    unet,
    unet_moe,
    vit,
)
from geomoe.models.contract import ModelContract
from geomoe.models.registry import list_models
from geomoe.models.weights import Card, LoadedModel, available_weights, create_model, load, read_card

__all__ = [
    "Card",
    "LoadedModel",
    "ModelContract",
    "available_weights",
    "create_model",
    "list_models",
    "load",
    "read_card",
]
