import pytest

from geomoe.tasks.registry import FAMILIES, Family
from tests.audit.made import MadeTask


@pytest.fixture(autouse=True)
def made_task(monkeypatch):
    monkeypatch.setitem(FAMILIES, "made", Family(MadeTask, None))
