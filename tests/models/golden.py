"""Networks and images whose values follow from a rule, so that published results can be written down.

A tensor is filled by the name that it has in the published file. A test that gives such tensors to our
network by the published layout checks the names, the changes of tensors and the network at once.
"""

import math
import zlib
from unittest.mock import patch

import pytest
import torch

import geomoe
from geomoe.models.published import LAYOUTS, recognise, to_ours, to_published
from geomoe.models.registry import config_of

_PRIME = 2003
_BETA = {"beta", "beta1", "beta2", "gamma", "gamma1", "gamma2"}


def uniform(count, k):
    """``count`` numbers in -1 to 1, float64, another row of them for each k."""
    i = torch.arange(count, dtype=torch.int64)
    return ((31 * i**2 + 17 * i + 101 * k) % _PRIME).double() / 1001 - 1


def filled(name, shape):
    """The tensor that a published file would hold under ``name``, float64."""
    u = uniform(math.prod(shape), zlib.crc32(name.encode()) % _PRIME).reshape(shape)
    last = name.rpartition(".")[2]
    if last == "relative_position_bias_table" or last in _BETA:
        return 0.5 * u
    if last.startswith("temperature"):
        return 1 + 0.5 * u
    if last == "logit_scale":
        return 2.3 + 0.5 * u
    if last in {"attn1", "attn2", "attn3", "attn4"}:
        return 0.2 + 0.1 * u
    if len(shape) == 1:
        return 1 + 0.2 * u if last == "weight" else 0.1 * u
    return u / math.sqrt(math.prod(shape) / shape[0])


def image(bands, height, width):
    """``[1, bands, height, width]`` in 0 to 1, float64."""
    i = torch.arange(bands * height * width, dtype=torch.int64)
    return (((31 * i**2 + 17 * i) % _PRIME).double() / 2002).reshape(1, bands, height, width)


def published_state(layout, name, change=lambda key, tensor: tensor, **options):
    """The state, filled by the rule, that the published program would save of model ``name``."""
    with torch.device("meta"):
        like = to_published(layout, geomoe.create_model(name, **options))
    return {key: change(key, filled(key, tuple(t.shape))) for key, t in like.items()}


def golden(name, layout=None, change=lambda key, tensor: tensor, dtype=torch.float32, **options):
    """Model ``name`` with the tensors of the rule, brought to it as a converted file's are."""
    layout = layout_of(name) if layout is None else layout
    state = published_state(layout, name, change, **options)
    assert recognise(state) is layout
    _, ours = to_ours(layout, state, options)
    # Drawing random numbers for what is replaced at once takes longer than everything else.
    with patch.multiple(torch.nn.init, trunc_normal_=_left, kaiming_uniform_=_left, kaiming_normal_=_left):
        model = geomoe.create_model(name, **options).to(dtype)
    model.load_state_dict(ours)
    return model.eval()


def _left(tensor, *_, **__):
    return tensor


def layout_of(name):
    """The first layout of the family that model ``name`` is of."""
    family = type(config_of(name, {}))
    return next(one for one in LAYOUTS if type(config_of(one.model, {})) is family)


def seen(model, x, **modules):
    """What modules of a model gave first while it computed ``model(x)``, by name; ``image`` is the result.

    In the precision of its parameters.
    """
    kept = {}

    def keep(name):
        return lambda module, given, result: kept.setdefault(name, (given, result)) and None

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    with torch.inference_mode():
        result = model(x.to(next(model.parameters()).dtype))
    for handle in handles:
        handle.remove()
    return {"image": result, **{name: result for name, (_, result) in kept.items()}}


def check(tensor, mean, std, first, middle, last, tokens=False):
    """Compare the first image of ``[B, C, H, W]``, or of ``[B, H, W, C]`` where ``tokens``, with five values.

    Its mean, its population standard deviation, and its values in the first corner, the middle and the last.
    """
    one = tensor[0].permute(2, 0, 1) if tokens else tensor[0]
    c, h, w = one.shape
    found = [one.mean(), one.std(correction=0), one[0, 0, 0], one[c // 2, h // 2, w // 2], one[-1, -1, -1]]
    # Half of the last digit, and rounding; of float32, 1e-5 of the largest value: wrong readings differ more.
    bar = 5e-7 + (1e-6 if tensor.dtype == torch.float64 else 1e-5) * float(one.abs().max())
    assert [float(v) for v in found] == pytest.approx([mean, std, first, middle, last], rel=0, abs=bar)
