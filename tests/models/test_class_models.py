"""What every registered model that knows classes must do, of whole images or of their pixels."""

import dataclasses

import pytest
import torch

import geomoe
from geomoe.models.weights import Card, load, save
from geomoe.moe import ExpertBank
from geomoe.moe.plan import RoutingTrace
from geomoe.moe.routing.router import AnyRouter
from geomoe.tasks.compiled import compile_blocks
from geomoe.tasks.muon import matrices
from tests.models.sizes import tiny


@pytest.fixture(params=geomoe.list_models("label") + geomoe.list_models("classes"))
def name(request):
    return request.param


def test_every_parameter_receives_a_gradient(name):
    """By all that it says; but those of experts that nothing in the batch was given, and of what it holds."""
    model, x, trace = tiny(name), torch.rand(4, 3, 24, 24), RoutingTrace()
    cities = getattr(model.config, "domains", ())
    told = {"domain": torch.arange(len(x)) % len(cities)} if cities else {}
    said = model.answers(x, trace, **told).values() if hasattr(model, "answers") else [model(x, trace)]
    torch.stack([one.square().sum() for one in said]).sum().backward()
    idle = [
        f"{layer}.bank.experts.{expert}."
        for layer, module in model.named_modules()
        for router, plan in zip(trace.routers, trace, strict=True)
        if getattr(module, "router", None) is router
        for expert in set(range(plan.num_experts)) - set(plan.experts.flatten().tolist())
    ]
    held = f"{getattr(model.config, 'HOLDS', None)}."
    frozen = {n for n, p in model.named_parameters() if n.startswith(held) and not p.requires_grad}
    missing = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    missing = [n for n in missing if n not in frozen]
    assert [n for n in missing if not n.startswith(tuple(idle))] == []


def test_an_image_does_not_depend_on_its_batch(name):
    model, x = tiny(name).eval(), torch.rand(3, 3, 9, 9)
    with torch.inference_mode():
        torch.testing.assert_close(model(x)[1:2], model(x[1:2]), atol=1e-5, rtol=1e-5)


def test_bands_are_normalised_by_the_configuration(name):
    x = torch.rand(1, 3, 8, 8)
    plain = tiny(name, mean=(0.0,), std=(1.0,)).eval()
    told = tiny(name, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 2.0)).eval()
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 1, 2]).view(3, 1, 1)
    with torch.inference_mode():
        torch.testing.assert_close(told(x), plain(by_hand))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_may_be_of_half_precision(name, dtype):
    """By themselves: autocast would mend what does not fit."""
    model, x = tiny(name).eval().to(dtype), torch.rand(1, 3, 24, 24).to(dtype)
    with torch.inference_mode():
        said = model(x)
    assert said.isfinite().all()
    if said.ndim == 4:
        assert said.shape[2:] == x.shape[2:]


@pytest.mark.parametrize("router", ["noisy_top_k", "switch"])
def test_save_and_load_give_the_same_result(name, router, tmp_path):
    known = {field.name for field in dataclasses.fields(tiny(name).config)}
    options = {"router": router, "sparse": "every_2"}
    options = {key: value for key, value in options.items() if key in known}
    model, x = tiny(name, **options).eval(), torch.rand(1, 3, 6, 6)
    card = Card(name, dataclasses.asdict(model.config), "unit", {}, "", {}, "", {}, "", "", "")
    save(tmp_path / "w.safetensors", model, dataclasses.replace(card, task="any"))
    loaded = load(str(tmp_path / "w.safetensors"))
    assert loaded.contract == model.contract
    with torch.inference_mode():
        assert torch.equal(model(x), loaded.model(x))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("size", [(8, 12), (7, 9)])
def test_onnx_gives_the_same_numbers(name, size, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, x = tiny(name).eval(), torch.rand(1, 3, *size)
    torch.onnx.export(model, (x,), dynamo=True, verbose=False).save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    (done,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(done), model(x), atol=1e-4, rtol=1e-4)


def test_blocks_can_be_compiled_and_stepped_by_muon(name):
    model = tiny(name)
    parts = [model.get_submodule(part) for part in compile_blocks(model, backend="eager")]
    assert parts
    assert not any(isinstance(m, AnyRouter | ExpertBank) for part in parts for m in part.modules())
    assert matrices(model)
