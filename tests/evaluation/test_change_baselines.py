"""The classical baselines of change: a log-ratio, and a threshold on it that training data choose."""

import numpy as np
import pytest
import torch

from geomoe import GeomoeError
from geomoe.evaluation.benchmark.estimators import FEATURES, OF_SENSORS, check_estimator, fit_estimator
from geomoe.evaluation.benchmark.threshold import Threshold
from geomoe.tasks.segmentation import Segmentation
from geomoe.tasks.stream import Named

SENSORS = {"before": 1, "after": 3}


def pair(seed=0, side=40):
    """A radar image and a coloured one of twice its values; a square that became brighter by five."""
    rng = np.random.default_rng(seed)
    before = rng.gamma(16, 4 / 16, (1, side, side))
    changed = np.zeros((side, side), bool)
    changed[10:25, 5:20] = True
    after = rng.gamma(16, 4 / 16, (3, side, side)) * np.where(changed, 10, 2)
    image = torch.from_numpy(np.concatenate([before, after])).float()
    return {"image": image, "mask": torch.from_numpy(changed).long(), "valid": torch.ones(side, side).bool()}


def batch(sample):
    return {name: value[None] for name, value in sample.items()}


def test_a_log_ratio_is_blind_to_the_gain_of_a_date_and_to_their_order():
    image = torch.rand(1, 4, 9, 9) + 0.1
    found = OF_SENSORS["log_ratio"]({"image": image}, SENSORS)
    brighter = torch.cat([image[:, :1], 7 * image[:, 1:]], 1)
    torch.testing.assert_close(OF_SENSORS["log_ratio"]({"image": brighter}, SENSORS), found)
    back = OF_SENSORS["log_ratio"]({"image": image[:, [1, 2, 3, 0]]}, {"before": 3, "after": 1})
    torch.testing.assert_close(back, found)
    same = OF_SENSORS["log_ratio"]({"image": image[:, [1, 1]]}, {"before": 1, "after": 1})
    assert same.shape == (1, 1, 9, 9)
    assert not same.any()


def test_a_log_ratio_does_not_look_at_what_is_not_there():
    image, valid = torch.rand(1, 2, 9, 9) + 0.1, torch.ones(1, 9, 9, dtype=torch.bool)
    valid[:, :, 6:] = False
    other = image.clone()
    other[..., 6:] = 50.0
    one, two = (
        OF_SENSORS["log_ratio"]({"image": x, "valid": valid}, {"a": 1, "b": 1}) for x in (image, other)
    )
    torch.testing.assert_close(one[..., :6], two[..., :6])


def test_a_log_ratio_is_of_two_dates():
    with pytest.raises(GeomoeError, match="log_ratio is of images of two dates"):
        OF_SENSORS["log_ratio"]({"image": torch.rand(1, 3, 4, 4)}, {})


def test_the_threshold_gives_the_largest_f1_of_what_is_learned():
    rows = np.array([[0.1], [0.2], [0.3], [0.4], [0.5]], np.float32)
    truths = np.array([0, 1, 0, 1, 1])
    found = Threshold().fit(rows, truths)
    assert found.threshold_ == pytest.approx(0.2)  # 3 of 4 right, all found: 6/7; from .4 on 4/5
    assert found.predict_proba(rows).argmax(1).tolist() == [0, 1, 1, 1, 1]
    with pytest.raises(GeomoeError, match="2 features of 2 classes; expected one feature"):
        Threshold().fit(np.zeros((2, 2), np.float32), np.array([0, 1]))
    with pytest.raises(GeomoeError, match="1 features of 1 classes"):
        Threshold().fit(np.zeros((2, 1), np.float32), np.array([1, 1]))


@pytest.mark.parametrize(
    ("model", "features", "options"),
    [("threshold", "log_ratio", {}), ("random_forest", "patches", {"n_estimators": 10})],
)
def test_what_changed_is_found_by_what_was_learned_of_another_pair(model, features, options):
    task = Segmentation("unet", bands=4, classes=("unchanged", "changed"), shares=(0.8, 0.2))
    learned, asked = (Named("made", [(str(seed), pair(seed))], sensors=SENSORS) for seed in (0, 1))
    fitted = fit_estimator(model, features, options, 0, task, learned)
    [(_, sample)] = asked.samples
    found = fitted(batch(sample))
    assert found.shape == (1, 2, 40, 40)
    changed, truth = found.argmax(1)[0] == 1, sample["mask"] == 1
    assert 2 * (changed & truth).sum() / (changed.sum() + truth.sum()) > 0.85


def test_a_threshold_has_no_options_and_features_have_names():
    with pytest.raises(GeomoeError, match="threshold has no option 'value'; it has: none"):
        check_estimator("arms.ratio", "threshold", "log_ratio", {"value": 1})
    with pytest.raises(GeomoeError, match=f"expected one of {', '.join(FEATURES)}, log_ratio"):
        check_estimator("arms.ratio", "threshold", "ratio", {})


def test_the_fall_of_the_vegetation_index_is_before_less_after():
    image = torch.zeros(1, 8, 1, 2)
    image[0, :, 0, 0] = torch.tensor([0.1, 0, 0, 0.3, 0.2, 0, 0, 0.2])  # red and near infrared of both dates
    found = OF_SENSORS["ndvi_fall"]({"image": image}, {"before": 4, "after": 4})
    torch.testing.assert_close(found, torch.tensor([[[[0.5, 0.0]]]]))
    with pytest.raises(GeomoeError, match="ndvi_fall is of two dates with red"):
        OF_SENSORS["ndvi_fall"]({"image": image[:, :4]}, {"before": 1, "after": 3})
