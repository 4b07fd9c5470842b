import copy
import shutil
from functools import partial

import pytest
import torch

from geomoe import GeomoeError, list_models
from geomoe.models import load
from geomoe.moe.experts.bank import ExpertBank
from geomoe.moe.routing.router import AnyRouter
from geomoe.tasks import task
from geomoe.tasks.compiled import compile_blocks
from tests.models.sizes import tiny

from .test_fit import folder, train  # noqa: F401

EAGER = partial(compile_blocks, backend="aot_eager")


@pytest.mark.parametrize("name", list_models("image"))
def test_every_model_has_blocks_and_nothing_that_routes_is_compiled(name):
    model = tiny(name)
    names = list(model.state_dict())
    compiled = compile_blocks(model, backend="eager")
    assert list(model.state_dict()) == names
    parts = [model.get_submodule(part) for part in compiled]
    assert all(part._compiled_call_impl is not None for part in parts)
    inside = [inner for part in parts for inner in part.modules()]
    assert len(inside) == len(set(inside)), "a block inside a block"
    assert not any(isinstance(inner, AnyRouter | ExpertBank) for inner in inside)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [
        ("swin2_mose", "aot_eager"),  # routers in every block
        ("rcan", "aot_eager"),
        pytest.param(
            "edsr", "inductor", marks=pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
        ),
    ],
)
def test_a_compiled_model_computes_the_same(name, backend):
    """Result and gradients."""
    eager = tiny(name)
    compiled = copy.deepcopy(eager)
    compile_blocks(compiled, backend=backend)
    x = torch.rand(2, 3, 8, 8)
    for model in (eager, compiled):
        torch.manual_seed(0)  # of noise on the logits
        model(x).square().mean().backward()
    for (key, a), b in zip(eager.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_training_compiled_gives_the_same_weights_and_either_resumes_the_other(
    folder,  # noqa: F811
    tmp_path,
    monkeypatch,
):
    seen = []

    def compile_and_count(model, device):
        seen.append(len(EAGER(model, device)))

    monkeypatch.setattr(task, "compile_blocks", compile_and_count)
    shape = ("--ema.decay=0.5", "--model.balance=bias")
    train(folder, tmp_path / "eager", *shape)
    assert not seen
    train(
        folder, tmp_path / "compiled", *shape, "--model.compile=true", "--trainer.callbacks+=EarlyStopping",
        "--trainer.callbacks.monitor=val/psnr", "--trainer.callbacks.mode=max",
        "--trainer.callbacks.stopping_threshold=0",
    )  # fmt: skip
    assert seen == [4]  # a block and its overlapping attention in each of two groups
    half = load(str(tmp_path / "compiled" / "last.safetensors"))
    assert half.card.recipe["steps"] == 3
    assert half.card.recipe["compiled"] is True
    train(folder, tmp_path / "compiled", *shape, f"--ckpt_path={tmp_path / 'compiled' / 'last.ckpt'}")
    a, b = (load(str(tmp_path / run / "last.safetensors")) for run in ("eager", "compiled"))
    for key, value in b.model.state_dict().items():
        torch.testing.assert_close(value, a.model.state_dict()[key], rtol=0, atol=1e-5, msg=key)


def test_without_a_compiler_it_says_so(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(GeomoeError, match=r"no C\+\+ compiler no-such-compiler.*leave --model"):
        compile_blocks(tiny("edsr"))
    assert compile_blocks(tiny("edsr"), "cuda")
    with pytest.raises(GeomoeError, match="no blocks"):
        compile_blocks(torch.nn.Conv2d(3, 3, 1), "cuda")
