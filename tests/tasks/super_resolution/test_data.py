import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.data.super_resolution.degradation import interpolated
from geomoe.data.super_resolution.layouts import real_pairs
from geomoe.evaluation.export import export
from geomoe.evaluation.super_resolution.evaluate import evaluate
from geomoe.metrics.protocol import get_protocol
from geomoe.models import load
from geomoe.tasks.super_resolution_data import SuperResolutionData
from tests.data.super_resolution.test_layouts import oli2msi, sen2venus
from tests.scenes import UTM, pixels, write_scene
from tests.tasks.super_resolution.test_fit import train


def test_each_data_set_is_recognised_and_described(tmp_path):
    oli2msi(tmp_path / "a"), sen2venus(tmp_path / "b", "ARM", ["2019-01-01", "2019-01-05"])
    found = {name: SuperResolutionData(str(tmp_path / name), scale=3) for name in "ab"}
    assert [data.layout for data in found.values()] == ["oli2msi", "sen2venus"]
    assert found["a"].inputs == "real"
    assert found["a"].describe("mine")["source"].startswith("OLI2MSI")
    folder = SuperResolutionData(str(tmp_path))
    assert (folder.layout, folder.inputs) == ("sen2venus", "real")
    (tmp_path / "c").mkdir()
    plain = SuperResolutionData(str(tmp_path / "c"), degradation="blind")
    assert (plain.layout, plain.inputs, plain.describe("mine")["source"]) == ("folder", "blind", "mine")


def test_what_cannot_be_is_refused_at_once(tmp_path):
    oli2msi(tmp_path)
    with pytest.raises(GeomoeError, match=r"is OLI2MSI: .* test split"):
        SuperResolutionData(str(tmp_path), layout="folder")
    with pytest.raises(GeomoeError, match="leave --data"):
        SuperResolutionData(str(tmp_path), degradation="bicubic")
    with pytest.raises(GeomoeError, match="3 bands, not 4; choose mtf_noise or blind_float"):
        SuperResolutionData(str(tmp_path / "none"), degradation="blind", bands=4)
    for layout, wanted in (
        ("aid", "AID/<Class>"),
        ("sen2venus", r"holds no \*_10m"),
        ("paired", "LR and HR"),
    ):
        with pytest.raises(GeomoeError, match=wanted):
            SuperResolutionData(str(tmp_path), layout=layout, scale=2).setup()


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_patches_do_not_depend_on_workers(tmp_path):
    sen2venus(tmp_path, "ARM", ["2019-01-01", "2019-01-05"])
    batches = []
    for workers in (0, 2):
        data = SuperResolutionData(
            str(tmp_path), scale=2, bands=4, patch_size=8, batch_size=2, steps_per_epoch=3, workers=workers
        )
        data.setup()
        batches.append(
            [torch.cat([part.flatten() for part in batch.values()]) for batch in data.train_dataloader()]
        )
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_four_bands_of_measured_pairs_train_and_are_scored(tmp_path):
    """From two folders of GeoTIFFs to weights with scores on their card."""
    for kind, side, grid in (("LR", 24, UTM), ("HR", 48, UTM * UTM.scale(0.5))):
        (tmp_path / "pairs" / kind).mkdir(parents=True)
        for i in range(2):
            data = pixels(4, side, side, "uint16", seed=i)
            write_scene(
                tmp_path / "pairs" / kind / f"{i}.tif", data, transform=UTM.translation(1e4 * i, 0) * grid
            )
    out = tmp_path / "run"
    options = ("--data.bands=4", "--model.protocol=hsenet", "--trainer.max_steps=3")
    train(tmp_path / "pairs", out, "--data.layout=paired", *options)
    card = load(str(out / "last.safetensors")).card
    assert (card.degradation, card.data["layout"], card.config["bands"]) == ("real", "paired", 4)
    card = export(out / "last.safetensors", tmp_path / "w.safetensors", tmp_path / "pairs", protocol="hsenet")
    assert card.scores["scored"] == "2 measured pairs of layout paired"
    with pytest.raises(GeomoeError, match="holds no pairs that were measured"):
        evaluate(load(str(tmp_path / "w.safetensors")), tmp_path, protocol="hsenet", degradation="real")
    with pytest.raises(GeomoeError, match=r"holds pairs that were measured \(paired\), of which both images"):
        evaluate(load(str(tmp_path / "w.safetensors")), tmp_path / "pairs", protocol="hsenet")


@pytest.mark.filterwarnings("ignore")
def test_what_learned_from_reflectance_is_scored_on_reflectance(tmp_path):
    oli2msi(tmp_path / "data", count=4), oli2msi(tmp_path / "data", "test", 1)
    options = ("--data.scale=3", "--data.patch_size=8", "--trainer.max_steps=3")
    scores = {}
    for stretch in ("true", "false"):
        out = tmp_path / stretch
        train(tmp_path / "data", out, "--data.layout=oli2msi", *options, f"--data.stretch={stretch}")
        model = load(str(out / "last.safetensors"))
        assert model.card.data.get("values") == (None if stretch == "true" else "reflectance")
        scores[stretch] = evaluate(model, tmp_path / "data", degradation="real").overall.baseline["psnr"]
    low, high = real_pairs("oli2msi", tmp_path / "data", "test", scale=3, bands=3, stretch=False)[0]
    plain = get_protocol("mfg_hmoe").score(interpolated(low[None], 3)[0], high, 3)[0]
    assert scores["false"] == pytest.approx(plain)
    assert scores["true"] != pytest.approx(plain)


@pytest.mark.slow
def test_pictures_train_and_are_scored_without_rasterio(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    program = f"""
import sys
sys.modules["rasterio"] = sys.modules["affine"] = None
import geomoe.models, geomoe.data.ucmerced, geomoe.data.aid
import geomoe.data.super_resolution.pairs, geomoe.data.super_resolution.layouts
import geomoe.tasks.fit, geomoe.evaluation.export
from geomoe.tasks.super_resolution_data import SuperResolutionData
data = SuperResolutionData({str(tmp_path)!r}, scale=2, patch_size=8, batch_size=2, steps_per_epoch=1)
data.setup()
batch = next(iter(data.train_dataloader()))
assert (batch["image"].shape, batch["target"].shape) == ((2, 3, 8, 8), (2, 3, 16, 16))
found = geomoe.evaluate(geomoe.load("mfg_hmoe_light", 2), {str(tmp_path)!r}, device="cpu")
assert found.overall.items == 3
assert not [name for name in sys.modules if name.startswith("geomoe.raster")]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_patches_larger_than_every_image_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    for i, side in enumerate((24, 20, 24)):
        Image.fromarray(rng.integers(0, 256, (side, 30, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
    with pytest.raises(GeomoeError, match=r"patch_size=7.*choose at most 6"):
        SuperResolutionData(str(tmp_path), scale=4, patch_size=7).setup()
    SuperResolutionData(str(tmp_path), scale=4, patch_size=6).setup()  # the smaller image is mirrored
