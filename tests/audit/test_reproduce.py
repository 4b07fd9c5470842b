"""An audit is done again by its manifest; what is not as it was is found."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from geomoe import GeomoeError
from geomoe.audit.reproduce import Difference, Record, differences, read_record
from geomoe.audit.request import Request
from geomoe.audit.section import TIMINGS, Finding, Section
from geomoe.files import write_csv
from geomoe.models.registry import build
from geomoe.models.weights import read_card, save
from tests.audit.report.made import made
from tests.cli.run import run
from tests.evaluation.test_calibrate_samples import CLASSES, TINY, card_of


def save_weights(path, seed):
    torch.manual_seed(seed)
    model = build("vmoe_ti", TINY)
    data = {"classes": dict.fromkeys(CLASSES, 20)}
    card = card_of("vmoe_ti", "classification", config=vars(model.config), data=data, recipe={"size": 16})
    save(path, model, card)
    return path


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Weights, data, and a report of a part of an audit by the command."""
    folder = tmp_path_factory.mktemp("reported")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (folder / "data" / name).mkdir(parents=True)
        for number in range(20):
            values = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(values).save(folder / "data" / name / f"{number}.png")
    save_weights(folder / "tiny.safetensors", 0)
    return folder


@pytest.fixture
def audited(reported, capsys):
    if not (reported / "report").exists():
        status, _, heard = run(
            capsys, "audit", reported / "tiny.safetensors", "--data", reported / "data", "--only", "usage",
            "--out", reported / "report",
        )  # fmt: skip
        assert status == 0, heard
    return reported


def test_a_report_is_reproduced_exactly(audited, capsys):
    status, said, heard = run(capsys, "reproduce", audited / "report" / "manifest.json")
    assert status == 0, heard
    assert "all the same exactly" in said
    assert int(said.split()[0]) > 15


def test_a_manifest_says_what_is_needed(audited):
    manifest = json.loads((audited / "report" / "manifest.json").read_text())
    assert manifest["weights"]["hash"] == read_card(audited / "tiny.safetensors").hash
    assert manifest["data"]["samples"] == len(manifest["samples"]) == 8
    assert "TopK(k=2" in manifest["routers"]["blocks.1.ffn.moe.router"]
    assert set(manifest["software"]) >= {"geomoe", "commit", "torch", "python"}
    assert manifest["machine"]["threads"] == torch.get_num_threads()
    assert manifest["command"].startswith("geomoe audit ")
    assert manifest["normalisation"]["radiometry"] == "unit"


def test_another_image_is_found_before_the_work(audited, capsys, tmp_path):
    record = read_record(audited / "report")
    name = next(iter(record.manifest["samples"]))
    for path in (audited / "data").rglob("*.png"):
        copy = tmp_path / path.relative_to(audited / "data")
        copy.parent.mkdir(exist_ok=True)
        image = np.asarray(Image.open(path)).copy()
        if str(path).endswith(name):
            image[3, 4, 1] ^= 1
        Image.fromarray(image).save(copy)
    status, _, heard = run(capsys, "reproduce", audited / "report", "--data", tmp_path)
    assert status == 1
    assert f"{name} is another, of 8 samples" in heard


def test_other_weights_are_found_before_the_work(audited, capsys, tmp_path):
    other = save_weights(tmp_path / "other.safetensors", 1)
    status, _, heard = run(capsys, "reproduce", audited / "report", "--model", other)
    assert status == 1
    assert "other are not the weights of the report" in heard


def test_a_report_that_was_changed_is_refused(audited, tmp_path):
    for name in ("manifest.json", "audit.json"):
        (tmp_path / name).write_bytes((audited / "report" / name).read_bytes())
    text = (tmp_path / "audit.json").read_text()
    (tmp_path / "audit.json").write_text(text.replace('"rows": ', '"rows": 1'))
    with pytest.raises(GeomoeError, match="not as it was"):
        read_record(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(GeomoeError, match="no manifest of an audit"):
        read_record(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(GeomoeError, match="not JSON"):
        read_record(tmp_path)


def test_numbers_that_differ_are_told(audited):
    record = read_record(audited / "report")
    layer = record.sections["usage"]["data"]["blocks.1.ffn"]
    now = record.request.audit(record.request.subject())
    assert differences(record, now, 0)[0] == []
    layer["confidence"] *= 1 + 1e-6
    [found] = differences(record, now, 0)[0]
    assert found.place == "usage / blocks.1.ffn / confidence"
    assert differences(record, now, 1e-3)[0] == []
    layer["load"].append(0.5)
    assert [d.place for d in differences(record, now, 1e-3)[0]] == ["usage / blocks.1.ffn / load"]


def test_times_are_not_compared():
    def section(seconds, code):
        return Section(
            "cost", "", "", (Finding("note", code, ""),), data={TIMINGS: {"s": seconds}, "rows": 3}
        )

    def audit(*sections):
        return type(made())(*([""] * 7), 0, Finding("note", "", ""), sections)

    was = Record({}, {"cost": {"data": {TIMINGS: {"s": 1.0}, "rows": 3}, "findings": []}})
    assert differences(was, audit(section(2.0, "slow")), 0) == ([], 1)


def test_differences_say_how_much():
    assert str(Difference("a / b", 2.0, 3.0)) == "a / b: 2.0 was, 3.0 is (+0.5 of it)"
    assert str(Difference("a", None, 3)) == "a: None was, 3 is"


def test_a_request_is_the_command_that_makes_it():
    asked = Request("a b.safetensors", "/d", "validation", 9, ("usage", "maps"), 3, True)
    assert asked.command("out") == (
        "geomoe audit 'a b.safetensors' --data /d --out out --split validation --images 9 "
        "--only usage,maps --seed 3 --skip-corrupt"
    )


def test_other_weights_that_it_was_compared_with_are_found(reported, capsys, tmp_path):
    other = save_weights(tmp_path / "other.safetensors", 1)
    status, _, heard = run(
        capsys, "audit", reported / "tiny.safetensors", "--data", reported / "data", "--only", "usage",
        "--against", other, "--out", tmp_path / "report",
    )  # fmt: skip
    assert status == 0, heard
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"--out report --only usage --against {other}" in page
    assert run(capsys, "reproduce", tmp_path / "report")[0] == 0
    save_weights(other, 2)
    status, _, heard = run(capsys, "reproduce", tmp_path / "report")
    assert status == 1
    assert "not the weights that the report compares with" in heard


def test_a_table_of_scores_that_is_another_now_is_found(reported, capsys, tmp_path):
    subject = Request(str(reported / "tiny.safetensors"), str(reported / "data")).subject()
    rows = []
    for names, batch in subject.batches():
        right = subject.scores(subject.answer(batch), batch)["oa"]
        rows += [["moe", 0, n, "oa", v, "", ""] for n, v in zip(names, right.tolist(), strict=True)]
    rows += [["dense", 0, row[2], "oa", 0.0, "active", "moe"] for row in rows]
    scores = tmp_path / "scores.csv"
    write_csv(scores, [["arm", "seed", "item", "metric", "value", "twin", "of"], *rows])
    status, said, heard = run(
        capsys, "audit", reported / "tiny.safetensors", "--data", reported / "data", "--only", "usage",
        "--benchmark", scores, "--out", tmp_path / "report",
    )  # fmt: skip
    assert status == 0, heard
    assert "its dense twin of equal active cost" in said
    assert 'class="verdict' in (page := (tmp_path / "report" / "report.html").read_text())
    assert page.index("Is the mixture worth having?") < page.index("Which experts are used?")
    assert "Whether a network without routing would be as good" not in page
    assert run(capsys, "reproduce", tmp_path / "report")[0] == 0
    scores.write_text(scores.read_text() + "dense,1,a,oa,1.0,active,moe\n")
    status, _, heard = run(capsys, "reproduce", tmp_path / "report")
    assert status == 1
    assert "scores.csv is not the table of scores that the report cites" in heard


@pytest.mark.slow
def test_a_library_that_is_missing_is_told_of_before_the_work(reported, tmp_path):
    code = (
        "import sys; sys.modules['cmcrameri'] = sys.modules['cmcrameri.cm'] = None\n"
        "from geomoe.cli.main import main; main(sys.argv[1:])"
    )
    args = ["audit", reported / "tiny.safetensors", "--data", reported / "data", "--out", tmp_path / "report"]
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'geomoe[audit]'" in done.stderr
    assert "section 1" not in done.stderr
