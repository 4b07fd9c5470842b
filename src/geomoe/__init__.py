"""geomoe: Mixture-of-Experts for Earth observation.

Importing this package is cheap; what is asked for is imported when it is first used.

    geomoe.create_model(name, scale=4, bands=3, pretrained=False, **config)
    geomoe.list_models()
    geomoe.load(name_or_path, scale)
    geomoe.upscale(src, dst, scale=4, ...)
    geomoe.predict(src, dst, model=weights, ...)
    geomoe.evaluate(model, root, ...)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geomoe.errors import GeomoeError

if TYPE_CHECKING:
    from geomoe.evaluation.evaluate import evaluate
    from geomoe.models import create_model, list_models, load
    from geomoe.pipeline import predict, upscale

__version__ = "0.2.0"

__all__ = [
    "GeomoeError",
    "__version__",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "predict",
    "upscale",
]

_HOMES = {
    "create_model": "geomoe.models",
    "evaluate": "geomoe.evaluation.evaluate",
    "list_models": "geomoe.models",
    "load": "geomoe.models",
    "predict": "geomoe.pipeline",
    "upscale": "geomoe.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geomoe' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
