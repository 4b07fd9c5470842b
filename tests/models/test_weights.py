import json
import resource
from dataclasses import asdict, fields, replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.modules import module as registration

import geomoe
from geomoe.models import available_weights, load, read_card
from geomoe.models.weights import Card, save
from tests.models.test_models import tiny


def card_of(model, **changes):
    fields = {
        "model": "mfg_hmoe", "config": asdict(model.config), "radiometry": "unit", "data": {},
        "degradation": "bilinear", "recipe": {}, "protocol": "mfg_hmoe", "scores": {}, "commit": "",
        "date": "2026-01-01", "licence": "Apache-2.0",
    }  # fmt: skip
    return Card(**{**fields, **changes})


@pytest.fixture
def saved(tmp_path):
    model = tiny("mfg_hmoe")
    path = tmp_path / "tiny.safetensors"
    save(path, model, card_of(model))
    return model, path


def test_what_is_loaded_is_what_was_saved(saved):
    model, path = saved
    loaded = load(str(path), 2)
    x = torch.rand(1, 3, 6, 6)
    with torch.inference_mode():
        assert torch.equal(loaded.model(x), model.eval()(x))
    assert loaded.name == "tiny"
    assert loaded.contract.scale == 2
    assert len(loaded.hash) == 64


def test_the_hash_depends_on_the_tensors_alone(saved, tmp_path):
    model, path = saved
    again = save(tmp_path / "again.safetensors", model, card_of(model, date="2027-01-01"))
    assert again.hash == read_card(path).hash
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    assert save(tmp_path / "other.safetensors", model, card_of(model)).hash != again.hash


def rewrite(path, change_metadata=lambda m: m, change_tensors=lambda t: t):
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    save_file(change_tensors(tensors), path, metadata=change_metadata(metadata))


def test_a_changed_tensor_is_noticed(saved):
    _, path = saved
    rewrite(path, change_tensors=lambda t: {k: v + 1 for k, v in t.items()})
    with pytest.raises(geomoe.GeomoeError, match="damaged"):
        load(str(path))


@pytest.mark.parametrize(
    ("name", "bands", "mean"),
    [
        ("hat", 4, (0.5,)),
        ("hat", 3, ()),
        ("ttst", 3, (0.4488, 0.4371, 0.4040)),
        ("mfg_hmoe", 4, (0.5,)),
        ("rrdbnet", 4, None),
    ],
)
def test_weights_older_than_the_option_subtract_what_they_did(tmp_path, name, bands, mean):
    model, path = tiny(name, bands=bands), tmp_path / "old.safetensors"
    config = {key: value for key, value in asdict(model.config).items() if key != "mean"}
    save(path, model, replace(card_of(model, config=config), model=name))
    assert getattr(load(str(path)).model.config, "mean", None) == mean


def test_weights_of_another_model_are_refused(saved):
    _, path = saved

    def other(metadata):
        card = json.loads(metadata["geomoe"])
        card["config"]["embed_dim"] = 24
        return {"geomoe": json.dumps(card)}

    rewrite(path, other)
    with pytest.raises(geomoe.GeomoeError, match="another model"):
        load(str(path))


def test_the_wrong_scale_is_refused(saved):
    with pytest.raises(geomoe.GeomoeError, match="for scale 2, not 4"):
        load(str(saved[1]), 4)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "not a weights file"), (b"hello" * 100, "not a weights file"), (None, "does not exist")],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, said):
    path = tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(geomoe.GeomoeError, match=said) as caught:
        load(str(path))
    assert "\n" not in str(caught.value)


def test_safetensors_without_a_card_are_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(geomoe.GeomoeError, match="no geomoe card"):
        load(str(tmp_path / "x.safetensors"))


def test_a_card_cut_short_is_refused(saved):
    _, path = saved
    rewrite(path, lambda m: {"geomoe": m["geomoe"][:-20]})
    with pytest.raises(geomoe.GeomoeError, match="not a weights file"):
        load(str(path))


def test_names_are_explained():
    with pytest.raises(geomoe.GeomoeError, match="no model or weights file is called 'hat_xxl'"):
        load("hat_xxl", 4)
    with pytest.raises(geomoe.GeomoeError, match="for scale 8"):
        load("mfg_hmoe_light", 8)


@pytest.mark.parametrize("scale", [2, 4])
def test_shipped_weights_are_small_whole_and_documented(scale):
    path = available_weights()[f"mfg_hmoe_light_x{scale}"]
    assert path.stat().st_size <= 5_000_000
    loaded = load("mfg_hmoe_light", scale)
    card = loaded.card
    assert card.licence == "Apache-2.0"
    assert card.scores["scored"] == "525 test images of UCMerced"
    assert all(
        (card.radiometry, card.data["sources"], card.degradation, card.protocol, card.commit, card.recipe)
    )
    model = geomoe.create_model("mfg_hmoe_light", scale=scale, pretrained=True)
    x = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        assert torch.equal(model(x), loaded.model(x))


def test_pretrained_weights_for_other_options_are_refused():
    with pytest.raises(geomoe.GeomoeError, match="bands=4"):
        geomoe.create_model("mfg_hmoe_light", scale=4, bands=4, pretrained=True)


BEYOND = {
    "blocks": ("edsr", {"blocks": 10**9}),
    "blocks within the numbers": ("edsr", {"blocks": 60_000}),
    "width": ("edsr", {"width": 6000}),
    "groups": ("rcan", {"groups": 10**9}),
    "depths": ("hat", {"depths": [10**9]}),
    "many depths": ("swinir", {"depths": [60_000] * 10_000}),
    "window": ("hat", {"window": 4096}),
    "experts": ("mfg_hmoe_light", {"experts_per_group": 10**9}),
    "channels": ("rrdbnet", {"growth": 10**8}),
    "a whole number of 300 digits": ("edsr", {"blocks": 10**300}),
}


REGISTERING = (
    registration.register_module_parameter_registration_hook,
    registration.register_module_buffer_registration_hook,
    registration.register_module_module_registration_hook,
)


@pytest.mark.parametrize("what", BEYOND)
def test_a_card_cannot_have_more_made_than_its_file_holds(tmp_path, what):
    """A few hundred tensors without memory at most, for models of terabytes."""
    name, config = BEYOND[what]
    card = Card(name, {"scale": 2, **config}, "unit", {}, "", {}, "", {}, "", "", "")
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1500)}, path, {"geomoe": json.dumps(asdict(card))})
    made, before = [], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    hooks = [register(lambda module, name, value: made.append(name)) for register in REGISTERING]
    with pytest.raises(geomoe.GeomoeError) as raised:
        load(str(path))
    for hook in hooks:
        hook.remove()
    assert "\n" not in str(raised.value)
    assert len(made) < 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes
    assert read_card(path).model == name


@pytest.mark.parametrize("name", geomoe.list_models("image"))
def test_every_model_is_within_what_its_own_file_allows(tmp_path, name):
    model = tiny(name)
    path = tmp_path / "w.safetensors"
    save(path, model, replace(card_of(model), model=name))
    assert load(str(path), 2).model.state_dict().keys() == model.state_dict().keys()


def test_a_header_beyond_its_budget_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes((9 * 2**20).to_bytes(8, "little") + b"{" + b" " * (9 * 2**20 - 1))
    with pytest.raises(geomoe.GeomoeError, match="more than 8 MiB"):
        load(str(path))


def test_a_card_that_is_nested_too_deeply_is_one_error(tmp_path):
    path = tmp_path / "w.safetensors"
    deep = json.loads("[" * 200 + "]" * 200)
    card = Card("edsr", {"scale": 2}, "unit", {"a": deep}, "", {}, "", {}, "", "", "")
    save_file({"a": torch.ones(1)}, path, {"geomoe": json.dumps(asdict(card))})
    with pytest.raises(geomoe.GeomoeError, match="nested"):
        read_card(path)


def test_a_checkpoint_of_training_is_told_from_weights(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"PK\x03\x04")
    for name in ("last.ckpt", str(tmp_path / "last.ckpt")):
        with pytest.raises(
            geomoe.GeomoeError, match=r"checkpoint to resume training from; give the best.safetensors"
        ):
            load(name)


@pytest.mark.parametrize("field", [field.name for field in fields(Card)])
def test_an_entry_of_a_card_that_is_of_another_kind_is_refused(tmp_path, field):
    model = tiny("edsr")
    card = save(tmp_path / "w.safetensors", model, card_of(model))
    for odd in (None, 3, True, [1], {"a": 1}, "x", float("nan")):
        entries = {**asdict(card), field: odd}
        save_file(model.state_dict(), tmp_path / "o.safetensors", metadata={"geomoe": json.dumps(entries)})
        if isinstance(odd, type(asdict(card)[field])):
            continue
        with pytest.raises(geomoe.GeomoeError, match=f"its card has no {field} that can be understood"):
            load(str(tmp_path / "o.safetensors"))
