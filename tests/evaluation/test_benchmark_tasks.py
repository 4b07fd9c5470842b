"""Benchmarks of other tasks than super-resolution: networks, dense twins and estimators, on made data."""

import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from geomoe import GeomoeError
from geomoe.cli.main import main
from geomoe.configs import find_config
from geomoe.evaluation.benchmark import cost as cost_module
from geomoe.evaluation.benchmark import read_benchmark, run_benchmark
from geomoe.evaluation.benchmark.estimators import FEATURES, fit_estimator
from geomoe.evaluation.benchmark.render import cells, markdown
from geomoe.evaluation.benchmark.run import describe_benchmark
from geomoe.evaluation.benchmark.samples import Samples
from geomoe.evaluation.statistics import mean_interval
from tests.evaluation.super_resolution.tiny import here
from tests.tasks.test_segmentation import cube

TRAINER = {"max_steps": 4, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
MAPS = {
    "title": "Stripes",
    "flagship": "moe",
    "task": "segmentation",
    "seeds": [0, 1],
    "train": "stripes",
    "split_by_seed": True,
    "settings": {"apart": {"split": "blocks", "block": 8}, "pixels": {"split": "pixels"}},
    "recipe": {
        "trainer": TRAINER,
        "model": {"learning_rate": 1.0e-2},
        "data": {"patch": 12, "batch_size": 2, "steps_per_epoch": 2},
    },
    "arms": {
        "moe": {"model": "unet_spatial_moe", "options": {"width": 4, "depth": 1, "experts": 2}},
        "dense": {"model": "unet_spatial_moe",
                  "options": {"width": 4, "depth": 1, "experts": 2, "twin": "active"}},
        "forest": {"model": "random_forest", "features": "patches", "options": {"n_estimators": 5}},
    },
}  # fmt: skip
LABELS = {
    "title": "Colours",
    "flagship": "forest",
    "task": "classification",
    "seeds": [0, 1],
    "recipe": {},
    "arms": {
        "forest": {"model": "random_forest", "features": "colours", "options": {"n_estimators": 5}},
        "boosting": {"model": "gradient_boosting", "features": "colours", "options": {"max_iter": 3}},
    },
}


@pytest.fixture(autouse=True)
def peak(monkeypatch):
    monkeypatch.setattr(cost_module, "peak_of", lambda *_: 300.0)


def written(folder, file, **changes):
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**file, **changes}, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    (root / "stripes").mkdir()
    cube(root / "stripes" / "stripes.npz")
    return root


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Ten images a class, which their means tell apart."""
    root = tmp_path_factory.mktemp("colours")
    rng = np.random.default_rng(0)
    for i, name in enumerate(("field", "sea", "town")):
        (root / name).mkdir()
        for number in range(10):
            values = rng.normal(60 + 60 * i, 20, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(values).save(root / name / f"{number}.png")
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_networks_twins_and_forests_are_compared_under_each_setting(data, tmp_path):
    settings = read_benchmark(written(tmp_path, MAPS)).under()
    assert list(settings) == ["apart", "pixels"]
    one = settings["pixels"]
    table = run_benchmark(one, data, tmp_path / "out", train=here, device="cpu")
    rows = {row.arm: row for row in table.rows}
    assert set(rows["moe"].scores) == {"oa", "aa", "kappa", "miou", "mf1"}
    assert rows["forest"].cost is None
    assert rows["moe"].cost.active == pytest.approx(rows["dense"].cost.parameters, rel=0.05)
    assert rows["forest"].scores["oa"].mean > 0.8 > rows["moe"].scores["oa"].mean
    assert rows["dense"].difference.mean == pytest.approx(
        rows["dense"].scores["oa"].mean - rows["moe"].scores["oa"].mean
    )
    assert rows["dense"].p is None, "there is one cube, of which no test over samples knows anything"
    text = markdown(table)
    assert "Intervals: 95 %, over seeds." in text
    assert "- data: patch=12, batch_size=2, steps_per_epoch=2, split=pixels; split anew for each seed" in text
    titles, lines = cells(table)
    assert {"OA", "AA", "kappa", "mIoU"} <= set(titles)
    assert all(len(line) == len(titles) for line in lines)
    said = describe_benchmark(one, data, tmp_path / "out")
    assert "forest: random_forest on patches" in said
    assert sum("is finished" in line for line in said) == 6
    configs = [yaml.safe_load(path.read_text()) for path in (tmp_path / "out" / "moe").rglob("fit.yaml")]
    split = {config["data"]["init_args"]["split_seed"] for config in configs}
    assert split == {0, 1}


def test_whole_images_are_told_apart_by_their_colours(colours, tmp_path, capsys):
    config = written(tmp_path, LABELS)
    main(
        ["benchmark", str(config), "--data", str(colours), "--out", str(tmp_path / "out"), "--device", "cpu"]
    )
    found = capsys.readouterr().out
    assert "Baseline, the largest class" in found
    table = run_benchmark(read_benchmark(config), colours, tmp_path / "out", device="cpu")
    rows = {row.arm: row for row in table.rows}
    assert rows["forest"].scores["oa"].mean == 1
    assert rows["boosting"].p is not None, "there are six test images"


def test_an_estimator_gives_nothing_to_classes_that_it_did_not_learn(data):
    benchmark = read_benchmark(find_config("indian_pines", "benchmarks")).under()["blocks"]
    one = Samples(benchmark, data / "stripes")
    task = one._task(one._facts(one._data(benchmark.arm("forest"), 0)), {})
    named = one._data(benchmark.arm("forest"), 0).samples("fit")
    [(_, sample)] = named.samples
    sample["mask"][sample["mask"] == 1] = -1
    fitted = fit_estimator("random_forest", "pixels", {"n_estimators": 2}, 0, task, named)
    answer = fitted({name: value[None] for name, value in sample.items()})
    assert answer.shape[1] == 3
    assert not answer[:, 1].any()
    assert torch.allclose(answer.sum(1)[sample["mask"][None] >= 0], torch.ones(()))


def test_arms_are_ranked_by_another_metric_where_one_is_named(colours, tmp_path):
    table = run_benchmark(
        read_benchmark(written(tmp_path, LABELS, rank_by="kappa")), colours, tmp_path / "out", device="cpu"
    )
    rows = {row.arm: row for row in table.rows}
    assert table.ranks == "kappa"
    assert rows["boosting"].difference.mean == pytest.approx(
        rows["boosting"].scores["kappa"].mean - rows["forest"].scores["kappa"].mean
    )
    with pytest.raises(GeomoeError, match="rank_by='miou': classification has aa, ece, "):
        run_benchmark(
            read_benchmark(written(tmp_path, LABELS, rank_by="miou")), colours, tmp_path / "o", device="cpu"
        )


def test_metrics_that_some_arms_alone_have_stand_in_the_table(colours, tmp_path):
    benchmark, out = read_benchmark(written(tmp_path, LABELS)), tmp_path / "out"
    run_benchmark(benchmark, colours, out, device="cpu")
    for seed, quality in enumerate((0.4, 0.6)):
        [path] = out.rglob(f"forest/seed{seed}/result.json")
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"overall": found["overall"] | {"pq": quality}}))
    table = run_benchmark(benchmark, colours, out, device="cpu")
    rows = {row.arm: row for row in table.rows}
    assert rows["forest"].scores["pq"].mean == pytest.approx(0.5)
    assert "pq" not in rows["boosting"].scores
    assert "PQ" in cells(table)[0]


def test_values_of_an_image_are_all_of_them():
    image = torch.rand(2, 3, 4, 5)
    assert torch.equal(FEATURES["values"]({"image": image}), image.reshape(2, 60))


def test_a_patch_does_not_look_at_what_is_not_there():
    image = torch.full((1, 1, 5, 5), 2.0)
    valid = torch.ones(1, 5, 5, dtype=torch.bool)
    valid[:, :, 3:] = False
    image[:, :, :, 3:] = 100.0
    assert torch.allclose(
        FEATURES["patches"]({"image": image, "valid": valid})[0, 1, :, :3], torch.tensor(2.0)
    )


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (MAPS, {"scale": 2}, "has no 'scale'"),
        (MAPS, {"task": "guessing"}, "no task is called 'guessing'"),
        (MAPS, {"settings": {"apart": {"root": "x"}}}, "settings.apart has no 'root'"),
        (LABELS, {"rank_by": "smell"}, "rank_by='smell': expected a metric"),
        (LABELS, {"split_by_seed": "often"}, "split_by_seed='often': expected true or false"),
        (LABELS, {"arms": {"forest": {"model": "tree", "features": "colours"}}}, "no estimator is called"),
        (LABELS, {"arms": {"forest": {"model": "random_forest", "features": "smell"}}}, "features='smell'"),
        (LABELS, {"arms": {"forest": {"model": "random_forest", "features": "colours",
                                      "options": {"trees": 3}}}}, "random_forest has no option 'trees'"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(tmp_path, file, changes, said):
    with pytest.raises(GeomoeError, match=said):
        read_benchmark(written(tmp_path, file, **changes))


@pytest.mark.parametrize(
    "name", ["change", "eurosat", "idtrees", "indian_pines", "radar", "radar_noisy", "radar_optical"]
)
def test_benchmarks_that_ship_can_be_read(name):
    benchmark = read_benchmark(find_config(name, "benchmarks"))
    assert {arm.features is None for arm in benchmark.arms} == {True, False}
    twins = {arm.options.get("twin") for arm in benchmark.arms}
    assert {"active", "parameters"} <= twins


def test_large_samples_count_for_more():
    scores = np.array([[1.0, 0.0], [0.8, 0.2]])
    alike, weighed = mean_interval(scores), mean_interval(scores, sizes=np.array([3.0, 1.0]))
    assert (alike.mean, weighed.mean) == pytest.approx((0.5, 0.7))
    one = mean_interval(scores, sizes=np.array([2.0, 2.0]))
    assert (one.low, one.high) == pytest.approx((alike.low, alike.high))
