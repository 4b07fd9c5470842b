"""What is known of samples: what they hold, what a file says, where they lie."""

from dataclasses import replace

import pytest

from geomoe import GeomoeError
from geomoe.audit.facts import facts_of, read_facts
from geomoe.audit.run import subject_of
from geomoe.tasks.registry import FAMILIES, Family
from tests.audit.planted import NAMES, PlantedTask, planted


def renamed(subject, name):
    pairs = [(name(i), sample) for i, (_, sample) in enumerate(subject.samples.samples)]
    return replace(subject, samples=replace(subject.samples, samples=pairs))


def test_whole_numbers_are_facts_and_labels_are_classes():
    found = facts_of(planted(count=16))
    assert set(found) == {"class", "mode", "sensor"}
    assert set(found["class"]) <= set(NAMES)
    assert found["mode"] == [str(i % 4) for i in range(16)]


def test_folders_are_facts_unless_they_say_what_another_one_does():
    subject = planted(count=16)
    assert facts_of(renamed(subject, lambda i: f"{i % 2}/{i}.png"))["folder"] == ["0", "1"] * 8
    assert "folder" not in facts_of(renamed(subject, lambda i: f"m{i % 4}/{i}.png"))


def test_a_file_says_more(tmp_path):
    rows = [f"{i}.png,2024-0{1 + i % 2}-15,{i / 3},r{i},{'' if i else 'x'}" for i in range(16)]
    (tmp_path / "facts.csv").write_text("\n".join(["name,date,latitude,id,empty", *rows]))
    subject = replace(planted(count=16), facts=read_facts(tmp_path / "facts.csv"))
    found = facts_of(subject)
    assert found["date"] == ["January", "February"] * 8
    assert len(set(found["latitude"])) == 4
    assert found["latitude"][0] == found["latitude"][3] == "0 to 1.25"
    assert not {"id", "empty"} & set(found), "what tells each sample from all others tells nothing"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "name\nx\n"])
def test_a_file_without_names_or_facts_is_refused(tmp_path, text):
    (tmp_path / "facts.csv").write_text(text)
    with pytest.raises(GeomoeError, match="column called name"):
        read_facts(tmp_path / "facts.csv")


def test_facts_of_other_samples_are_refused(monkeypatch):
    subject = planted(count=4)

    class Data:
        @classmethod
        def named(cls, *_, **__):
            return subject.samples

    monkeypatch.setitem(FAMILIES, "planted", Family(PlantedTask, Data))
    with pytest.raises(GeomoeError, match=r"no line for the sample 0\.png"):
        subject_of(subject.model, "", facts={"other.png": {"region": "north"}})
    some = subject_of(subject.model, "", images=2, seed=1).samples.samples
    assert sorted(name for name, _ in some) == ["0.png", "2.png"], "spread evenly over the list"
