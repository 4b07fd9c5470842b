"""``geomoe upscale --manifest``, as a user runs it."""

from types import SimpleNamespace

import pytest

from geomoe.cli.main import main
from geomoe.pipeline import Outcome
from tests.cli.run import run
from tests.scenes import pixels, write_scene


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--scheduler", "local"]])
def test_a_manifest_is_done_and_reported(capsys, scene, weights, tmp_path, more):
    (tmp_path / "m.csv").write_text(f"src,dst,experts\n{scene},out.tif,experts.tif\nnone.tif,none_x2.tif,\n")
    args = ["upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights, "--processes", 1]
    status, out, err = run(capsys, *args, "--retries", 0, *more)
    assert status == 1
    assert out == f"2 scenes: 1 done, 1 failed; {tmp_path / 'm.csv.report.csv'}\n"
    assert err.splitlines()[-1].startswith("geomoe: error: 1 of 2 scenes were not made; see ")
    assert "none.tif: failed: " in err
    (tmp_path / "m.csv").write_text(f"src,dst,experts\n{scene},out.tif,experts.tif\n")
    status, out, _ = run(capsys, *args, "--report", tmp_path / "r.csv")
    assert (status, out) == (0, f"1 scene: 1 there; {tmp_path / 'r.csv'}\n")
    assert sorted(p.name for p in tmp_path.glob("*.tif")) == ["experts.tif", "out.tif", "scene.tif"]
    status, _, err = run(capsys, *args, "--report", tmp_path / "none" / "r.csv")
    assert (status, len(err.splitlines())) == (1, 1), "before the work, not after"


def test_a_night_that_is_cut_off_leaves_its_report(capsys, scene, weights, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\n{scene},other.tif\n")

    def cut_off(requests, heard, **rest):
        heard(Outcome(requests[1], "done"))
        raise KeyboardInterrupt

    monkeypatch.setattr("geomoe.pipeline.predict_many", cut_off)
    status, _, _ = run(capsys, "upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights)
    assert status == 130
    lines = (tmp_path / "m.csv.report.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["status", "waiting", "done"]


def test_a_dry_run_of_a_manifest(capsys, scene, weights, tmp_path, monkeypatch):
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\nnone.tif,none_x2.tif\n")
    args = ["upscale", "--manifest", tmp_path / "m.csv", "--scale", 2, "--model", weights, "--dry-run"]
    status, out, err = run(capsys, *args)
    assert status == 1
    assert out.startswith("scenes   1 to be made, 0 made already, 0 empty, 1 refused\ntiles ")
    assert out.endswith("learned  from tiles of 1 of the scenes\nnothing was written (--dry-run)\n")
    assert "none.tif: " in err
    assert err.splitlines()[-1] == "geomoe: error: 1 of 2 scenes would not be made"
    (tmp_path / "m.csv").write_text(f"src,dst\n{scene},out.tif\n")
    assert run(capsys, *args)[0] == 0
    assert run(capsys, *args, "--scheduler", "local")[0] == 2
    usage = SimpleNamespace(free=1)
    shutil = SimpleNamespace(disk_usage=lambda folder: usage)
    monkeypatch.setattr("geomoe.pipeline.batch.estimate.shutil", shutil)
    status, _, err = run(capsys, *args)
    assert status == 1
    assert "has 0.0 MB free, and " in err.splitlines()[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.csv", "scene.tif"]


@pytest.mark.parametrize(
    "args", [["a.tif"], [], ["--manifest", "m.csv", "a.tif"], ["--manifest", "m.csv", "--bands", "1"]]
)
def test_a_manifest_or_a_scene(capsys, args):
    assert run(capsys, "upscale", *args)[0] == 2


@pytest.mark.slow
def test_what_was_decided_of_a_scene_is_told_before_its_tiles_and_in_a_manifest(tmp_path, capsys):
    data = pixels(3, 60, 60, "uint8", seed=1).clip(1)
    data[:, :, :25] = 0  # a collar that the scene does not declare
    src = write_scene(tmp_path / "s.tif", data)
    main(["upscale", str(src), str(tmp_path / "o.tif"), "--scale", "2"])
    out = capsys.readouterr().out.splitlines()
    assert "taken for pixels without data" in out[0]
    (tmp_path / "m.csv").write_text(f"src,dst\n{src},{tmp_path / 'p.tif'}\n")
    main(["upscale", "--manifest", str(tmp_path / "m.csv"), "--scale", "2"])
    assert "s.tif: done: " in (told := capsys.readouterr().err)
    assert "taken for pixels without data" in told
    assert "taken for pixels without data" in (tmp_path / "m.csv.report.csv").read_text()


@pytest.mark.parametrize("option", ["--report=r.csv", "--processes=2", "--scheduler=local"])
def test_what_is_of_a_manifest_is_not_ignored_for_one_scene(capsys, option):
    with pytest.raises(SystemExit) as ended:
        main(["upscale", "s.tif", "o.tif", option])
    assert ended.value.code == 2
    assert f"{option.partition('=')[0]} is for a --manifest" in capsys.readouterr().err
