"""last.ckpt: whole or not there, and believed only where every byte is right."""

import os
import tempfile
import zipfile

import pytest
import torch

from geomoe import GeomoeError
from geomoe.tasks.checkpoint import SafeCheckpoints, read_checkpoint

from .test_fit import folder, train  # noqa: F401


def state(value=1.0):
    moments = {"state": {0: {"exp_avg": torch.full((40,), value)}}}
    return {
        "epoch": 2, "global_step": 9, "state_dict": {"weight": torch.full((300,), value)}, "loops": {},
        "current_model_state": {"weight": torch.full((300,), 2 * value)},
        "callbacks": {}, "optimizer_states": [moments], "lr_schedulers": [{"last_epoch": 9}],
        "hyper_parameters": {"scale": 2},
    }  # fmt: skip


def equal(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def test_what_was_written_is_read(tmp_path):
    SafeCheckpoints().save_checkpoint(state(), tmp_path / "runs" / "last.ckpt")
    assert equal(SafeCheckpoints().load_checkpoint(tmp_path / "runs" / "last.ckpt"), state())
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_an_earlier_checkpoint_outlives_a_later_one_that_is_cut_short(tmp_path, monkeypatch, step):
    path = tmp_path / "last.ckpt"
    SafeCheckpoints().save_checkpoint(state(1.0), path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(GeomoeError, match=r"last.ckpt cannot be written: No space left on device; it is as"):
        SafeCheckpoints().save_checkpoint(state(2.0), path)
    assert equal(read_checkpoint(path), state(1.0))
    assert list(tmp_path.iterdir()) == [path]


def test_a_changed_bit_is_found_wherever_it_makes_a_difference(tmp_path):
    path = tmp_path / "last.ckpt"
    SafeCheckpoints().save_checkpoint(state(), path)
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        try:
            assert equal(read_checkpoint(path), state()), place  # in the filling between entries
        except GeomoeError:
            refused += 1
    assert refused > len(whole) / 7 / 2


def test_an_entry_that_torch_would_take_for_a_folder_is_found(tmp_path):
    path = tmp_path / "last.ckpt"
    SafeCheckpoints().save_checkpoint(state(), path)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = whole.index(b"PK\x01\x02", archive.start_dir)
    whole[at + 38] |= 0x10  # the attribute of MS-DOS; the CRC of the entry is still right
    path.write_bytes(whole)
    with pytest.raises(GeomoeError, match="not those of torch"):
        read_checkpoint(path)


def damaged():
    """Files that are no checkpoint, by what is wrong with them."""

    def saved(found):
        def write(path, whole):
            torch.save(found, path)

        return write

    def packed(path, whole):
        path.write_bytes(whole)
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in entries.items():
                archive.writestr(name, data)

    cases = {
        "empty": lambda path, whole: path.write_bytes(b""),
        "half": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
        "zeros": lambda path, whole: path.write_bytes(bytes(len(whole))),
        "a hole": lambda path, whole: path.write_bytes(whole[:2000] + bytes(512) + whole[2512:]),
        "text": lambda path, whole: path.write_text("not a checkpoint\n" * 99),
        "packed": packed,
        "a list": saved([1, 2]),
        "weights alone": saved({"state_dict": {}}),
        "code": saved({"state_dict": os.getcwd}),
        "of old torch": lambda path, whole: torch.save(state(), path, _use_new_zipfile_serialization=False),
    }
    for part in state():
        cases[f"without {part}"] = saved({k: v for k, v in state().items() if k != part})
        cases[f"odd {part}"] = saved({**state(), part: "odd"})
    return cases


@pytest.mark.parametrize("case", damaged())
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, case):
    path = tmp_path / "last.ckpt"
    SafeCheckpoints().save_checkpoint(state(), path)
    damaged()[case](path, path.read_bytes())
    with pytest.raises(
        GeomoeError, match=r"last.ckpt is (damaged, or no|not a) checkpoint of geomoe fit: "
    ) as error:
        read_checkpoint(path)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.filterwarnings("ignore")
def test_a_training_makes_nothing_in_the_folder_for_temporary_files(folder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    train(folder, tmp_path / "run", "--trainer.max_steps=3")
    assert read_checkpoint(tmp_path / "run" / "last.ckpt")["global_step"] == 3


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_of_another_model_is_refused(folder, tmp_path):  # noqa: F811
    train(folder, tmp_path, "--trainer.max_steps=3")
    path = tmp_path / "last.ckpt"
    whole = read_checkpoint(path)
    before = sorted(p.name for p in tmp_path.iterdir())
    other = "not a checkpoint that this training can continue from: "
    for part, odd, said in (
        ("state_dict", {"model.none": torch.zeros(1)}, other),
        ("current_model_state", {"model.none": torch.zeros(1)}, other),
        ("optimizer_states", [{}], other),
        ("optimizer_states", [], "has no optimizer_states"),
        ("lr_schedulers", ["odd"], other),
        ("loops", {"fit_loop": {}}, "of step 3 and its loop of step 0"),
        ("callbacks", {}, "how good the best weights are"),
        ("callbacks", {"WeightsWriter": {}}, "how good the best weights are"),
        ("callbacks", {"WeightsWriter": {"odd": 1}}, other),
    ):
        SafeCheckpoints().save_checkpoint({**whole, part: odd}, path)
        with pytest.raises(GeomoeError, match=said):
            train(folder, tmp_path, f"--ckpt_path={path}")
    assert sorted(p.name for p in tmp_path.iterdir()) == before
