"""Published files become weights with a card; what is no such file is refused in one line."""

import argparse
import collections
import datetime
import hashlib
import json
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from geomoe import GeomoeError
from geomoe.models import load
from geomoe.models.published import convert, to_published
from geomoe.models.published.convolutional import EDSR
from geomoe.models.published.mfg_hmoe import MFG_HMOE
from geomoe.models.published.swinir import SWINIR
from tests.models.golden import check, golden, image, published_state
from tests.models.sizes import tiny

SHAPE = {"embed_dim": 12, "depths": (2, 1), "heads": 2, "window": 4, "head": "direct"}


@pytest.fixture(scope="module")
def model():
    return tiny("swinir_light", **SHAPE).eval()


@pytest.fixture
def state(model):
    return to_published(SWINIR, model)


def converted(tmp_path, content, *, zipped=True, **options):
    torch.save(content, tmp_path / "theirs.pth", _use_new_zipfile_serialization=zipped)
    convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", **options)
    return load(str(tmp_path / "ours.safetensors"))


def said(tmp_path, content, **options):
    """The line by which a file is refused, with nothing left behind."""
    with pytest.raises(GeomoeError) as caught:
        converted(tmp_path, content, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_published_file_computes_as_before_and_says_where_it_is_from(model, state, tmp_path):
    loaded = converted(tmp_path, {"params": state}, origin="https://example.org/x.pth", licence="MIT")
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model(x))
    card = loaded.card
    assert (card.model, card.config["scale"], card.config["embed_dim"]) == ("swinir_light", 2, 12)
    assert (card.degradation, card.licence, card.data) == (
        "unknown",
        "MIT",
        {"source": "https://example.org/x.pth"},
    )
    assert card.recipe == {
        "converted_from": "theirs.pth",
        "sha256": hashlib.sha256((tmp_path / "theirs.pth").read_bytes()).hexdigest(),
        "layout": "SwinIR",
        "entry": "params",
    }


@pytest.mark.parametrize("windows", ["shifted", "overlapping"])
def test_a_rename_alone_would_be_wrong(windows):
    """Position tables as they are load strictly, and the image is wrong."""
    shape = {"embed_dim": 12, "depths": (2,), "heads": 2, "window": 4, "compress": 2, "squeeze": 4}
    network, x = golden("hat", scale=2, **shape), image(3, 16, 16).float()
    with torch.inference_mode():
        right = network(x)
        for block in network.trunk.groups[0].blocks:
            table = block.attention.bias.table
            if windows == "shifted" and len(table) == 7**2:
                table.copy_(table.flip(0))
            if windows == "overlapping" and len(table) == 9**2:
                table.copy_(table.roll(-(6 - 2) * (4 + 6), 0))
        wrong = network(x)
    assert (wrong - right).abs().max() > 1e-3 * right.abs().max()


def test_safetensors_that_others_made_are_read_too(model, state, tmp_path):
    save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / "theirs.safetensors")
    convert(tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors")
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        assert torch.equal(load(str(tmp_path / "ours.safetensors")).model(x), model(x))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "theirs.safetensors").read_bytes()[:-9])
    with pytest.raises(GeomoeError, match="damaged"):
        convert(tmp_path / "cut.safetensors", tmp_path / "other.safetensors")


def test_golden_values_survive_the_file(tmp_path):
    loaded = converted(tmp_path, published_state(SWINIR, "swinir_light", scale=4))
    assert loaded.card.model == "swinir_light"
    with torch.inference_mode():
        check(loaded.model(image(3, 16, 24).float()), 0.452268, 0.342734, 0.651720, 0.724739, 0.383667)
    assert golden("swinir_light", scale=4).config == loaded.model.config


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        collections.OrderedDict,
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {"params": {k: v + 1 for k, v in s.items()}, "params_ema": s},
        lambda s: {"model_state_dict": s, "epoch": 70, "optimizer_state_dict": {"state": {0: {"step": 1}}}},
        lambda s: {"state_dict": s, "epoch": 1},
        lambda s: {k: torch.nn.Parameter(v) for k, v in s.items()},
        lambda s: {k: v.half().float().half() for k, v in s.items()},
        lambda s: (
            s
            | {
                "layers.0.residual_group.blocks.1.attn_mask": torch.zeros(4, 16, 16),
                "layers.0.residual_group.blocks.0.attn.relative_position_index": torch.zeros(16, 16).long(),
            }
        ),
    ],
    ids=[
        "plain",
        "ordered",
        "parallel",
        "averaged",
        "whole run",
        "state_dict",
        "parameters",
        "half",
        "buffers",
    ],
)
def test_tensors_are_found_wherever_programs_keep_them(model, state, tmp_path, wrap, zipped):
    loaded = converted(tmp_path, wrap(state), zipped=zipped)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(loaded.model(x), model(x), atol=2e-3, rtol=0)
    assert {v.dtype for v in loaded.model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"params": {"a": torch.zeros(1)}, "args": argparse.Namespace(a=1)}, "argparse.Namespace"),
        ({"a": torch.zeros(1), "loss": np.float64(30)}, "multiarray.scalar"),
        ({"a": np.zeros(3)}, "multiarray._reconstruct"),
        ({"a": torch.zeros(1), "date": datetime.datetime(2020, 1, 1)}, "datetime.datetime"),
        ({"a": collections.defaultdict(list)}, "collections.defaultdict"),
        ([torch.zeros(1)], "a list"),
        ({"a": torch.zeros(1), "epoch": 3}, "a int as 'epoch'"),
        ({"params": {"a": [1.0]}}, "params holds a list as 'a'"),
        ({}, "no tensors"),
        ({"a": torch.zeros(1)}, "no network that is known"),
        ({"a": torch.zeros(9).to_sparse()}, "sparse"),
        ({"a": torch.zeros(1).expand(10**6, 10**6)}, "claim 4,000,000,000,000 bytes"),
        ({"a": torch.full((3,), torch.nan)}, "not finite"),
    ],
)
def test_what_is_not_tensors_alone_is_refused_and_named(tmp_path, content, named, zipped):
    assert named in said(tmp_path, content, zipped=zipped)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "norm.bias"}, "has no norm.bias"),
        (lambda s: s | {"surplus.weight": torch.zeros(1)}, "'surplus.weight'"),
        (lambda s: s | {"norm.bias": torch.zeros(12).to(torch.float8_e4m3fn)}, "is of torch.float8_e4m3fn"),
        (lambda s: s | {"norm.bias": torch.zeros(12).long()}, "norm.bias is of torch.int64"),
        (lambda s: s | {"norm.bias": torch.zeros(13)}, "norm.bias give [13], expected [12]"),
        (lambda s: s | {"layers.999999999.conv.bias": torch.zeros(1)}, "left out"),
        (lambda s: s | {"conv_first.1.weight": torch.zeros(1)}, "folds its input"),
        (lambda s: s | {"body.0.rdb1.conv1x1.weight": torch.zeros(1)}, "ESRGAN+"),
        (lambda s: s | {"absolute_pos_embed": torch.zeros(1)}, "absolute position codes"),
        (lambda s: s | {"layers.0.residual_group.blocks.0.attn.cpb_mlp.0.weight": torch.zeros(1)}, "Swin2SR"),
        (lambda s: {k: v for k, v in s.items() if "upsample" not in k}, "removes noise"),
        (lambda s: s | {"upsample.0.weight": torch.zeros(75, 12, 3, 3)}, "scale=5"),
        (lambda s: {k: v for k, v in s.items() if "conv_first" not in k}, "has no conv_first.weight"),
        (lambda s: s | {"conv_first.weight": torch.zeros(12)}, "shapes do not fit"),
        (lambda s: s | {"conv_first.weight": torch.zeros(0, 3, 3, 3)}, "conv_first.weight is empty"),
        (lambda s: s | {"upsample.0.weight": torch.zeros(0)}, "upsample.0.weight is empty"),
    ],
)
def test_what_differs_from_the_published_network_is_named(state, tmp_path, change, named):
    assert named in said(tmp_path, change(state))


def test_a_width_that_nothing_bears_out_is_refused_before_anything_is_built(state, tmp_path, monkeypatch):
    """6 kB of tensors that ask for gigabytes: counted without memory first."""
    state["conv_first.weight"] = torch.zeros(1, 1, 1, 1).expand(60_000, 3, 3, 3).contiguous()
    assert "expected" in said(tmp_path, state)


def test_options_of_a_far_larger_model_are_refused_before_it_is_built(tmp_path):
    state = to_published(EDSR, tiny("edsr"))
    with pytest.raises(GeomoeError, match="not EDSR with such options: that has many more tensors"):
        converted(tmp_path, state, options={"blocks": 10**8, "residual_scale": 1.0})


def test_no_name_is_written_down_for_what_is_not_there(tmp_path):
    """A gate for 10^15 experts takes no byte where it is empty, and a list of their names all memory."""
    state = to_published(MFG_HMOE, tiny("mfg_hmoe_released"))
    gate = "upsample.0.gate.w_expert_gates.0.weight"
    for wrong, named in ((torch.zeros(10**15, 0), "is empty"), (torch.zeros(10**6, 1), "of one number")):
        assert named in said(tmp_path, state | {gate: wrong})


def test_the_model_that_is_asked_for_is_the_one_that_is_there(state, tmp_path):
    assert "(layout SwinIR), not edsr" in said(tmp_path, state, model="edsr")
    assert "embed_dim=12" in said(tmp_path, state, model="swinir")
    assert "no model is called" in said(tmp_path, state, model="swinirr")
    assert converted(tmp_path, state, model="swinir_light").card.model == "swinir_light"


def test_what_no_tensor_tells_is_asked_for(tmp_path):
    state = to_published(EDSR, tiny("edsr", residual_scale=0.5))
    assert "residual_scale" in said(tmp_path, state)
    assert "no option 'residual'" in said(tmp_path, state, options={"residual_scale": 1.0, "residual": 1})
    loaded = converted(tmp_path, state, options={"residual_scale": 0.5, "mean": [0.25]})
    assert (loaded.card.config["residual_scale"], loaded.model.config.mean) == (0.5, (0.25,))


def test_files_that_torch_did_not_write_are_refused(state, tmp_path):
    path, target = tmp_path / "x.pth", tmp_path / "x.safetensors"
    torch.save(state, path)
    whole = path.read_bytes()
    for content in (b"", b"hello" * 99, pickle.dumps({"a": 1}), whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(GeomoeError, match=r"x\.pth"):
            convert(path, target)
    path.unlink()
    with pytest.raises(GeomoeError, match="does not exist"):
        convert(path, target)
    assert not target.exists()


def test_damaged_files_are_refused_in_one_line_or_read(state, tmp_path):
    """Files with some bytes changed, of both formats; many are changed in values alone."""
    draw, path, refused = random.Random(0), tmp_path / "x.pth", []
    for zipped in (True, False):
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for _ in range(draw.choice((1, 4, 30))):
                damaged[draw.randrange(draw.choice((200, 5000, len(whole))))] = draw.randrange(256)
            path.write_bytes(damaged)
            try:
                convert(path, tmp_path / "x.safetensors", overwrite=True)
            except GeomoeError as error:
                refused.append(str(error))
    assert 40 < len(refused) < 120
    assert "\n" not in "".join(refused)


def test_a_zip_that_grows_is_refused_before_it_is_unpacked(state, tmp_path):
    torch.save(state, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", 8) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if "data/" not in name else bytes(10**6))
    with pytest.raises(GeomoeError, match="unpacks to"):
        convert(tmp_path / "y.pth", tmp_path / "y.safetensors")


def test_targets_are_not_overwritten_unasked(state, tmp_path):
    converted(tmp_path, state)
    source, target = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    with pytest.raises(GeomoeError, match="--overwrite"):
        convert(source, target)
    convert(source, target, overwrite=True)
    for wrong, match in (
        (tmp_path / "a.pth", "must end"),
        (tmp_path / "no" / "a.safetensors", "folder first"),
    ):
        with pytest.raises(GeomoeError, match=match):
            convert(source, wrong)
    source = source.rename(tmp_path / "same.safetensors")
    with pytest.raises(GeomoeError, match="another target"):
        convert(source, source, overwrite=True)


def test_tensors_that_share_memory_are_written_apart(tmp_path):
    state = to_published(EDSR, tiny("edsr"))
    state["body.0.conv2.weight"] = state["body.0.conv1.weight"]
    loaded = converted(tmp_path, state, options={"residual_scale": 1.0})
    body = loaded.model.body[0].body
    assert torch.equal(body[0].weight, body[2].weight)
    assert json.dumps(loaded.card.config)
