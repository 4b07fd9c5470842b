"""Sources as commands other than ``fit`` read them."""

import subprocess
import sys

import pytest

from geomoe import GeomoeError
from geomoe.data.super_resolution.sources import Source
from geomoe.tasks.source_list import read_sources


def test_a_shipped_configuration_is_read_without_lightning():
    code = (
        "import sys; from geomoe.tasks.source_list import read_sources\n"
        "found = read_sources('mfg_hmoe_light_satellites')\n"
        "print(found.name, found.sources[0].name, found.validation, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["mfg_hmoe_light_satellites", "ucmerced", "0.05", "False"]


def test_a_bare_list_and_a_training_configuration_are_the_same(tmp_path):
    listed = "sources: [{name: a, folder: x, held_out: 0, made: [], degradations: {mtf: 2}}]"
    (tmp_path / "bare.yaml").write_text(listed)
    (tmp_path / "fit.yaml").write_text(f"data: {{validation: 0.2, {listed[:-1]}]}}")
    bare, fit = (read_sources(str(tmp_path / name)) for name in ("bare.yaml", "fit.yaml"))
    assert bare.sources == fit.sources == (Source("a", "x", held_out=0, degradations={"mtf": 2}),)
    assert (bare.validation, fit.validation) == (0.05, 0.2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources: []", "expected a list of sources"),
        ("data: {root: x}", "lists no sources"),
        ("sources: [3]", "expected a list of sources"),
        ("- 3", "lists no sources"),
        ("a: [", "is not YAML"),
        ("sources: [{name: a, folder: 3}]", "source a: .*folder.*Got value: 3"),
        ("sources: [{name: a, fold: x}]", "source a: .*does not accept option 'fold'"),
        ("sources: [{folder: x}]", "source number 1: .*required: source.name"),
        ("sources: [{name: a, degradations: {foo: 1}}]", "no degradation is called 'foo'"),
        ("sources: [{name: a}, {name: a}]", "two sources are called 'a'"),
        ("{validation: 2, sources: [{name: a}]}", "validation=2"),
    ],
)
def test_a_list_that_cannot_be_is_refused(tmp_path, text, words):
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(GeomoeError, match=words):
        read_sources(str(tmp_path / "list.yaml"))
