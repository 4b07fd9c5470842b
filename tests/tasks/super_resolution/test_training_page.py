import re
import sys
from pathlib import Path

import pytest

from geomoe.tasks.fit import fit

from .test_fit import folder, train  # noqa: F401

PAGE = (Path(__file__).parents[3] / "docs" / "training.md").read_text()


def test_every_option_on_the_page_is_there(capsys):
    with pytest.raises(SystemExit):
        fit(["--help"])
    known = set(re.findall(r"--[\w.]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][\w.]+", PAGE)) - {"--help"}
    named -= {"--model", "--half", "--every", "--tries"}  # of geomoe upscale, of geomoe export, of a script
    named -= {"--sources", "--model.options.informed"}  # of geomoe evaluate; an entry of --model.options
    named -= {"--skip"}  # --skip-corrupt, which is --data.skip_corrupt in a word
    assert len(named) > 8
    assert named <= known


@pytest.mark.filterwarnings("ignore")
def test_training_on_8_bit_images_wants_no_rasterio(folder, tmp_path, monkeypatch):  # noqa: F811
    for name in [name for name in sys.modules if name.startswith(("rasterio", "geomoe.raster"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rasterio", None)
    train(folder, tmp_path)
    assert (tmp_path / "last.safetensors").exists()
