import pytest

from geomoe.tasks.registry import FAMILIES, Family
from tests.audit.made import MadeTask
from tests.audit.planted import PlantedTask


@pytest.fixture(autouse=True)
def made_tasks(monkeypatch):
    monkeypatch.setitem(FAMILIES, "made", Family(MadeTask, None))
    monkeypatch.setitem(FAMILIES, "planted", Family(PlantedTask, None))
