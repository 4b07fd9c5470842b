"""What a model is worth is told beside its baseline, as geomoe evaluate tells it."""

import math

import pytest

from geomoe.audit.quality import quality
from geomoe.audit.request import Request
from geomoe.evaluation.evaluate import evaluate
from geomoe.models import load
from tests.audit.test_reproduce import reported, save_weights  # noqa: F401


def test_it_is_what_evaluate_finds(reported):  # noqa: F811
    subject = Request(str(reported / "tiny.safetensors"), str(reported / "data")).subject()
    section = quality(subject)
    found = evaluate(load(str(reported / "tiny.safetensors")), reported / "data")
    assert section.data["scores"] == pytest.approx(found.overall.values)
    assert section.data["baseline"] == pytest.approx(found.overall.baseline)
    gain, low, high = section.data["gain"]
    assert gain == pytest.approx(found.overall.gain("oa"))
    assert low < gain < high
    [finding] = section.findings
    assert finding.level == ("sound" if low > 0 else "warning")
    by_class = {row[0]: row for row in section.tables[1].rows}
    assert {name: row[1] for name, row in by_class.items()} == {"field": 4, "sea": 4}
    assert all(math.isfinite(row[2]) for row in by_class.values())
