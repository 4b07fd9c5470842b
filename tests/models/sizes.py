"""Every registered model in a size that a test can run."""

import torch

import geomoe
from geomoe.models.registry import takes

CLASSES, COLOURS = ("forest", "river", "town"), ("#00ff00", "#0000ff", "#808080")
_HYBRID = {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "squeeze": 4, "compress": 2,
           "width": 6}  # fmt: skip

# Small enough to run, large enough that every expert of a random router is used.
TINY = {
    "amoed": {"widths": (8, 12)},
    "base_t": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4, "experts": 3},
    "budget_moe": {"widths": (4, 6, 8), "blocks": (1, 1, 2), "experts": 3, "decoder": 6, "colours": COLOURS},
    "convnext": {"depths": (1, 1), "widths": (8, 12), "kernel": 3, "patch": 2, "experts": 3},
    "dmoe_vit": {
        "patch": 3,
        "step": 2,
        "width": 8,
        "depth": 1,
        "heads": 2,
        "code": (6, 3),
        "colours": COLOURS,
    },
    "dmrs": {"base": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4}, "cell": 4},
    "edsr": {"width": 8, "blocks": 2},
    "gram": {
        "widths": (8, 8),
        "depths": (1, 1),
        "heads": (1, 2),
        "reduce": (2, 1),
        "bottleneck": (2, 3),
        "experts": 3,
        "decoder": 8,
        "colours": COLOURS,
    },
    "hat": _HYBRID,
    "haunet": {"width": 8, "encoder": (1, 1, 1), "decoder": (1, 1, 1)},
    "hyper_trans_xnet": {
        "patch": 5,
        "reduced": 6,
        "width": 8,
        "blocks": 1,
        "heads": 2,
        "experts": 3,
        "colours": COLOURS,
    },
    "kong_fusion": {
        "patch": 3,
        "band_heads": 2,
        "mixed": 3,
        "width": 8,
        "heads": 2,
        "unlabelled": 8,
        "colours": COLOURS,
    },
    "land_moe": {
        "base": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4},
        "window": 4,
        "ranks": (2, 3),
        "tokens": 5,
        "groups": 3,
        "colours": COLOURS,
    },
    "m2cd": {"widths": (8, 12), "blocks": 1, "head": 8, "experts": 3, "mixed": (1, 2), "colours": COLOURS},
    "mamba_moe": {
        "width": 8,
        "inner": (2, 2, 2, 2),
        "state": 4,
        "spectral_state": 4,
        "head": 8,
        "colours": COLOURS,
    },
    "mamol": {
        "patch": 3,
        "cell": 1,
        "width": 8,
        "depth": 1,
        "heads": 2,
        "hidden": 8,
        "experts": 3,
        "rank": 2,
        "sensor_rank": 2,
        "colours": COLOURS,
    },
    "mfiae": {
        "things": ("town",),
        "width": 8,
        "layers": 1,
        "heads": 2,
        "window": 2,
        "hidden": 8,
        "experts": 3,
        "colours": COLOURS,
    },
    "mfg_hmoe": {**_HYBRID, "expert_width": 4, "router_width": 8, "experts_per_group": 2},
    "mixture_rs": {
        "patch": 3,
        "filters": 2,
        "spectral": 2,
        "width": 8,
        "tokens": 2,
        "heads": 2,
        "hidden": 8,
        "experts": 3,
        "dropout": 0.0,
        "colours": COLOURS,
    },
    "mobile": {"multiplier": 0.1, "layers": (1, 1, 1), "experts": 3},
    "mslora_net": {
        "base": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4},
        "window": 4,
        "levels": (1, 2),
        "experts": 3,
        "rank": 2,
        "width": 8,
        "colours": COLOURS,
    },
    "radar_fusion": {"embed_dim": 8, "depth": 1, "heads": 2, "experts": 3},
    "rcan": {"width": 8, "groups": 2, "blocks": 2, "reduction": 2},
    "rrdbnet": {"width": 8, "growth": 4, "blocks": 1},
    "siamese_moe": {"patch": 3, "stem": 6, "widths": (6, 8), "hidden": 8, "colours": COLOURS},
    "siamese_unet": {"width": 4, "depth": 2, "colours": COLOURS},
    "sparse_former": {
        "stem": 1,
        "widths": (8, 8),
        "blocks": 1,
        "rates": (1, 2),
        "decoder": 8,
        "width": 8,
        "depth": 2,
        "heads": 2,
        "window": 4,
        "dilations": (1, 2),
        "rounds": 2,
        "colours": COLOURS,
    },
    "spt": {
        "embed_dim": 12,
        "depths": (2, 1),
        "inner_dim": 8,
        "heads": 4,
        "squeeze": 2,
        "fusion_squeeze": 3,
        "width": 6,
    },
    "stacked_moe": {"widths": (8, 12), "experts": (2, 3)},
    "swin2_mose": {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "num_experts": 2},
    "swinir": {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "width": 6},
    "ttst": {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "width": 6},
    "umoe_mamba": {"widths": (8, 8), "state": 4, "scan": 2, "colours": COLOURS},
    "unet": {"width": 4, "depth": 2, "experts": 2, "colours": COLOURS},
    "unet_moe": {"width": 4, "depth": 2, "gate": (8, 8), "heads": 2, "colours": COLOURS},
    "vit": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4, "experts": 3},
    "vmoe": {"embed_dim": 12, "depth": 2, "heads": 2, "patch": 4, "experts": 3},
}


def tiny(name, **options):
    """Model ``name``, tiny, with random weights that are the same each time.

    Gates and factors that start at 0 are random too, as they are once a model has learned for a step.
    """
    torch.manual_seed(0)
    usual = {"scale": 2} if name in geomoe.list_models("image") else {"classes": CLASSES}
    if takes(name, "sensors"):
        bands = options.get("bands", 3)
        usual |= {"bands": bands, "sensors": {"first": bands - 1, "second": 1}}
    model = geomoe.create_model(name, **{**usual, **TINY[family(name)], **options})
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if (parameter.dim() > 1 and not parameter.any()) or key.endswith(".scale"):
                parameter.normal_(std=0.3)
    return model


def family(name):
    """The model that ``name`` is a size of: ``swinir`` of ``swinir_real_l``."""
    return max((known for known in TINY if name.startswith(known)), key=len)
