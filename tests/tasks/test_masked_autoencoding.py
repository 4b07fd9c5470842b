"""Masked autoencoding: a ViT learns from images without labels, and others begin with what it has learned."""

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.data.hidden import HiddenBatches, HiddenStream
from geomoe.models import load
from geomoe.models.masked import Decoder, squares
from geomoe.models.vit import VitConfig
from geomoe.tasks.fit import fit
from geomoe.tasks.masked_autoencoding import MaskedAutoencoding
from geomoe.tasks.masked_autoencoding_data import MaskedAutoencodingData

MODEL = "{patch: 4, embed_dim: 16, depth: 1, heads: 2}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images that grow brighter towards one side, of which each square tells what the others look like."""
    root = tmp_path_factory.mktemp("ramps")
    for name, count in {"many": 10, "one": 1}.items():
        (root / name).mkdir()
        for i in range(count):
            ramp = np.broadcast_to(np.linspace(10 + i, 240 - i, 24)[:, None, None], (24, 24, 3))
            Image.fromarray(ramp.astype(np.uint8)).save(root / name / f"{i}.png")
    return root


def train(folder, out, *more, steps=6):
    fit(
        [
            "--config=base_t", f"--data.root={folder}", "--data.folders={many: 0.9, one: 0.1}",
            "--data.size=16", "--data.cell=4", "--data.zoom=1.5", "--data.batch_size=8",
            "--data.steps_per_epoch=3", f"--model.options={MODEL}",
            "--model.decoder={embed_dim: 16, heads: 2, depth: 1}",
            f"--trainer.max_steps={steps}", f"--checkpoint.dirpath={out}", "--ema.decay=0.5",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
            "--trainer.accelerator=cpu", *more,
        ]
    )  # fmt: skip


def test_it_learns_what_is_hidden_and_keeps_the_encoder_alone(folder, tmp_path):
    train(folder, tmp_path, "--data.steps_per_epoch=60", "--model.learning_rate=1e-2", steps=60)
    loaded = load(str(tmp_path / "best.safetensors"))
    card = loaded.card
    assert (card.model, card.task) == ("base_t", "masked_autoencoding")
    assert card.scores["mse"] < 0.6
    assert card.scores["gain"] > 0.3
    assert card.recipe["hidden"] == 0.75
    assert card.data["dtypes"] == ["uint8"]
    assert card.data["images"] == {"many": 9, "one": 1}, "of one image alone nothing is held out"
    assert not any("decoder" in name for name in loaded.model.state_dict())
    assert loaded.model(torch.rand(1, 3, 16, 16)).shape == (1, 16)


def test_others_begin_with_it_and_its_features_are_a_table(folder, tmp_path):
    train(folder, tmp_path / "base", steps=3)
    weights = tmp_path / "base" / "last.safetensors"
    main(["predict", str(folder / "many"), str(tmp_path / "t.csv"), "--model", str(weights)])
    header, *rows = (tmp_path / "t.csv").read_text().splitlines()
    assert header.startswith("image,feature_1,feature_2")
    assert len(rows) == 10
    out = tmp_path / "labels"
    fit(
        [
            "--config=eurosat_vit", f"--data.root={folder}", "--data.split=images", "--data.test=0.2",
            "--data.size=16", "--data.batch_size=4", "--data.steps_per_epoch=2", "--trainer.max_steps=2",
            "--model.model=base_t", f"--model.options={MODEL[:-1]}, adapters: [2, 2]}}",
            f"--model.start={weights}", f"--checkpoint.dirpath={out}", "--trainer.accelerator=cpu",
            f"--trainer.logger.init_args.save_dir={out}", f"--trainer.default_root_dir={out}",
        ]
    )  # fmt: skip
    before, after = load(str(weights)).model, load(str(out / "last.safetensors"))
    state = after.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in before.state_dict().items())
    assert after.card.recipe["start"]["hash"] == load(str(weights)).hash


def test_a_resumed_run_ends_with_the_same_numbers(folder, tmp_path):
    train(folder, tmp_path / "whole")
    train(folder, tmp_path / "cut", "--trainer.callbacks+=EarlyStopping",
          "--trainer.callbacks.monitor=val/mse", "--trainer.callbacks.stopping_threshold=1e9")  # fmt: skip
    train(folder, tmp_path / "cut", f"--ckpt_path={tmp_path / 'cut' / 'last.ckpt'}")
    assert len({load(str(tmp_path / run / "last.safetensors")).hash for run in ("whole", "cut")}) == 1


def test_test_images_of_a_known_data_set_are_left_alone(tmp_path):
    for name in ("AnnualCrop", "HerbaceousVegetation", "SeaLake"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("RGB", (12, 12)).save(tmp_path / name / f"{i}.png")
    data = MaskedAutoencodingData(str(tmp_path), size=8, cell=4)
    assert sum(map(len, data._fit.values())) + sum(map(len, data._held.values())) == 3 * 8


def test_the_same_sample_is_the_same_crop_and_hides_as_many_squares():
    images = [[torch.rand(3, 20, 30)], [torch.rand(3, 6, 6) + 2]]
    stream = HiddenStream(images, (3.0, 1.0), 8, 2.0, 2, 0.75, seed=1, start=0, length=200)
    samples = [stream[i] for i in range(200)]
    assert {int(one["hidden"].sum()) for one in samples} == {12}
    assert {one["image"].shape for one in samples} == {(3, 8, 8)}, "small images are enlarged"
    small = sum(float(one["image"].min()) > 1.5 for one in samples)
    assert 25 < small < 80
    for name, value in HiddenStream(images, (3.0, 1.0), 8, 2.0, 2, 0.75, 1, 2, 50, 1, 3)[1].items():
        assert torch.equal(value, samples[6][name])
    batches = [HiddenBatches(stream, 64, rank, 3) for rank in range(3)]
    assert [[len(batch[i]["image"]) for i in range(len(batch))] for batch in batches] == [
        [64, 8], [64, 0], [64, 0]
    ]  # fmt: skip


def test_squares_are_normalised_one_by_one_and_flat_ones_stay_flat():
    x = torch.rand(2, 3, 8, 12)
    x[0, :, :4, :4] = 0.3
    found = squares(x, 4)
    assert found.shape == (2, 2, 3, 48)
    assert not found[0, 0, 0].any()
    torch.testing.assert_close(found.mean(3), torch.zeros(2, 2, 3), atol=1e-5, rtol=0)
    one = x[1, :, 4:, 8:]
    torch.testing.assert_close(
        found[1, 1, 2], ((one - one.mean()) / (one.var(correction=0) + 1e-3).sqrt()).flatten()
    )


def test_what_is_hidden_is_neither_seen_nor_in_another_order():
    torch.manual_seed(0)
    task = MaskedAutoencoding(options={"patch": 4, "embed_dim": 16, "depth": 1, "heads": 2}).eval()
    hidden = torch.rand(2, 4, 4).flatten(1).argsort(1).view(2, 4, 4) < 12
    batch = {"image": torch.rand(2, 3, 16, 16), "hidden": hidden}
    wide = hidden.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = {**batch, "image": torch.where(wide, torch.rand(2, 3, 16, 16), batch["image"])}
    with torch.inference_mode():
        torch.testing.assert_close(task.predict(batch), task.predict(other))
        assert not torch.allclose(task.truth(batch), task.truth(other))
    decoder = Decoder(16, 5, VitConfig(embed_dim=16, depth=1, heads=2))
    decoder(torch.rand(2, 4, 16), hidden).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in decoder.parameters())


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--data.cell=5", "data.cell=5: expected a divisor"),
        ("--data.cell=8", "data.cell=8: expected the model's patch, 4"),
        ("--data.hidden=1.0", "data.hidden=1.0"),
        ("--data.zoom=0.5", "data.zoom=0.5"),
        ("--data.folders={many: 0}", "data.folders="),
        ("--data.folders={one: 1}", "no folder of two images or more"),
        ("--model.model=unet", "expected a ViT without classes"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(folder, tmp_path, option, said):
    more = ["--model.options={}"] if "unet" in option else []
    with pytest.raises(GeomoeError, match=said):
        train(folder, tmp_path, option, *more)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_weights_without_labels_are_not_scored_by_any(folder, tmp_path, capsys):
    train(folder, tmp_path, steps=3)
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(tmp_path / "last.safetensors"), "--data", str(folder)])
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert "has no samples to score by name" in line


def test_the_decoder_computes_in_half_precision():
    decoder = Decoder(6, 12, VitConfig(embed_dim=8, depth=1, heads=2))
    hidden = torch.tensor([[True, False], [False, True]]).expand(3, 2, 2)
    seen = torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = decoder(seen, hidden)
    torch.testing.assert_close(half.float(), decoder(seen, hidden), atol=0.05, rtol=0.05)
