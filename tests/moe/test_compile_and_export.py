"""The core under torch.compile, and exported to ONNX."""

import shutil

import pytest
import torch
from torch import nn

from geomoe import moe

C, E = 8, 4


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = moe.MoE(moe.switch_router(C, E), moe.FeedForwardExperts(C, 16, E), nn.Linear(C, C))

    def forward(self, x):
        unit = moe.Tokens.of(x)
        return unit.from_rows(self.layer(unit.to_rows(x)))


class Pixels(nn.Module):
    def __init__(self):
        super().__init__()
        bank = moe.HeterogeneousBank([moe.ConvExperts(C, 6, k, 2) for k in (1, 3)])
        self.layer = moe.MoE(moe.dual_router(C, (2, 2), 2), bank)

    def forward(self, x):
        unit = moe.Pixels.of(x)
        around = moe.Neighbourhoods.of(x, self.layer.bank.reach)
        return unit.from_rows(self.layer(around, unit.to_rows(x), grid=unit.grid))


CASES = [
    pytest.param(Tokens, (2, 9, C), (3, 5, C), id="tokens"),
    pytest.param(Pixels, (2, C, 5, 7), (1, C, 9, 4), id="pixels"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape", "other"), CASES)
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.filterwarnings("ignore")
def test_compiled_equals_eager(kind, shape, other, backend):
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("inductor needs a C++ compiler")
    torch.manual_seed(0)
    torch.compiler.reset()
    model = kind()
    compiled = torch.compile(model, backend=backend)
    for size in (shape, other):
        x = torch.randn(size)
        model.zero_grad()
        expected = model(x)
        expected.square().sum().backward()
        grads = [p.grad.clone() for p in model.parameters()]
        model.zero_grad()
        done = compiled(x)
        done.square().sum().backward()
        torch.testing.assert_close(done, expected, atol=1e-5, rtol=1e-5)
        for mine, parameter in zip(grads, model.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, mine, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "shape", "other"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_onnx_gives_the_same_numbers_at_any_size(kind, shape, other, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    model = kind().eval()
    sizes = {d: torch.export.Dim.DYNAMIC for d in range(len(shape)) if shape[d] != C}
    program = torch.onnx.export(
        model, (torch.randn(shape),), dynamo=True, dynamic_shapes=(sizes,), verbose=False
    )
    program.save(tmp_path / "model.onnx")
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    for size in (shape, other):
        x = torch.randn(size)
        (done,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(done), model(x), atol=1e-5, rtol=1e-5)


class On(nn.Module):
    """A layer as a model that ``ask`` calls."""

    def __init__(self, layer, ask):
        super().__init__()
        self.layer, self.ask = layer, ask

    def forward(self, x):
        return self.ask(self.layer, x)


def routed(router):
    return On(moe.MoE(router, moe.FeedForwardExperts(C, 16, E)), lambda layer, x: layer(x))


def elastic():
    return moe.Router(moe.LinearScore(C, E), moe.ElasticTopK(2, (1, 2)))


def depthwise():
    layer = moe.MoE(moe.switch_router(C, E), moe.DepthwiseExperts(C, 3, E))

    def ask(layer, x):
        unit = moe.Pixels.of(x)
        return unit.from_rows(layer(moe.Neighbourhoods.of(x, 1), unit.to_rows(x), grid=unit.grid))

    return On(layer, ask)


def merged():
    layer = moe.MergedMoE(moe.softmax_router(C, E), moe.ConvExperts(C, 6, 3, E))
    return On(layer, lambda layer, x: layer(x, x.mean((2, 3))))


EXPORTED = {
    "dselect": (lambda: routed(moe.dselect_router(C, E)), (9, C), (14, C)),
    "elastic": (lambda: routed(elastic()), (9, C), (14, C)),
    "without_context": (
        lambda: routed(moe.Router(moe.ConditionedScore(moe.LinearScore(C, E), 3))),
        (9, C),
        (14, C),
    ),
    "capacity": (lambda: routed(moe.batch_priority_router(C, E)), (9, C), (14, C)),
    "soft": (
        lambda: On(moe.SoftMoE(moe.FeedForwardExperts(C, 16, E), C, 2), lambda layer, x: layer(x)),
        (2, 9, C),
        (3, 5, C),
    ),
    "output_gated": (
        lambda: On(
            moe.OutputGatedMoE(moe.FeedForwardExperts(C, 16, E), moe.agreement_logits),
            lambda layer, x: layer(x),
        ),
        (9, C),
        (14, C),
    ),
    "merged": (merged, (2, C, 5, 7), (3, C, 4, 6)),
    "depthwise": (depthwise, (2, C, 5, 7), (1, C, 9, 4)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_gives_the_same_numbers_at_any_size(name):
    make, shape, other = EXPORTED[name]
    torch.manual_seed(0)
    model = make().eval()
    if name == "dselect":  # saturated: experts without weight are left out
        nn.init.normal_(model.layer.router.score.to_code.weight, std=5)
    sizes = {d: torch.export.Dim.DYNAMIC for d in range(len(shape)) if shape[d] != C}
    program = torch.export.export(model, (torch.randn(shape),), dynamic_shapes=(sizes,)).module()
    for size in (shape, other):
        x = torch.randn(size)
        torch.testing.assert_close(program(x), model(x), atol=1e-5, rtol=1e-5)
