"""In which precision a model computes: what is asked for, what the device has, what the card says."""

import pytest
import torch

from geomoe.errors import GeomoeError
from geomoe.models.precision import computing_in, has_bfloat16, pick_precision, slow_precision

CPU = torch.device("cpu")


def a_processor(monkeypatch, *, onednn=True, avx512_bf16=True, amx=False, machine="x86_64", held_to=None):
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: True)
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: onednn)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr("platform.machine", lambda: machine)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    if held_to is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", held_to)


@pytest.mark.parametrize(
    ("processor", "native"),
    [
        ({}, True),
        ({"avx512_bf16": False, "amx": True}, True),
        ({"avx512_bf16": False}, False),  # AVX-512 alone: oneDNN converts, in twice the time
        ({"onednn": False}, False),
        ({"held_to": "avx512_core"}, False),
        ({"held_to": "AVX512_CORE_BF16"}, True),
        ({"avx512_bf16": False, "machine": "aarch64"}, True),
        ({"onednn": False, "machine": "aarch64"}, False),
    ],
)
def test_a_processor_has_bfloat16_where_it_has_instructions_for_it(monkeypatch, processor, native):
    a_processor(monkeypatch, **processor)
    assert has_bfloat16(CPU) == native
    assert pick_precision("auto", CPU, measured=True) == ("bfloat16" if native else "float32")
    assert (slow_precision("bfloat16", CPU) is None) == native


def test_without_onednn_a_processor_imitates_and_other_devices_do_not(monkeypatch):
    monkeypatch.setattr("torch.backends.mkldnn.is_available", lambda: False)
    assert not has_bfloat16(CPU)
    assert has_bfloat16(torch.device("mps"))


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_an_accelerator_has_bfloat16_from_capability_8_on(monkeypatch, capability, native):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda")) == native


def test_auto_wants_a_card_that_says_it_was_measured(monkeypatch):
    a_processor(monkeypatch)
    assert pick_precision("auto", CPU, measured=False) == "float32"
    assert pick_precision("bfloat16", CPU, measured=False) == "bfloat16"
    assert pick_precision("float32", CPU, measured=True) == "float32"
    assert pick_precision("auto", torch.device("mps"), measured=True) == "float32"


def test_what_is_slow_is_told_in_one_line_and_float32_never_is(monkeypatch):
    a_processor(monkeypatch, avx512_bf16=False)
    said = slow_precision("bfloat16", CPU)
    assert "imitated" in said
    assert "\n" not in said
    assert slow_precision("float32", CPU) is None


@pytest.mark.parametrize(("asked", "device"), [("half", "cpu"), ("bfloat16", "mps")])
def test_what_cannot_be_had_is_refused(asked, device):
    with pytest.raises(GeomoeError, match=f"precision.*{asked}"):
        pick_precision(asked, torch.device(device), measured=True)


def test_products_are_computed_in_what_is_asked_and_no_longer():
    linear, x = torch.nn.Linear(3, 3), torch.randn(2, 3)
    with torch.inference_mode():
        with computing_in("bfloat16", CPU):
            assert linear(x).dtype == torch.bfloat16
        with torch.autocast("cpu", torch.bfloat16), computing_in("float32", CPU):
            assert linear(x).dtype == torch.float32
        with computing_in("float32", torch.device("meta")):
            assert linear(x).dtype == torch.float32
