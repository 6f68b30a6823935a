"""The cookbook: twenty policies that are valid, tested, explained, and measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.cookbook import FIGURES, FOLDER
from domain.policies import cases, validation
from domain.policies.attributes import Phase
from domain.policies.documents import PolicyDocument
from domain.policies.validation import Invalid, slot_of

FILES = sorted(FOLDER.glob("*.json"))
README = FOLDER / "README.md"


def read(file: Path) -> PolicyDocument:
    return PolicyDocument.model_validate_json(file.read_bytes())


def test_there_are_twenty_and_each_is_told_and_measured() -> None:
    names = [file.stem for file in FILES]
    assert len(names) == 20
    assert set(names) == FIGURES.keys()
    rows = re.findall(r"^\| \[`([^`]+)`\]\(\1\.json\) \|", README.read_text(), re.MULTILINE)
    assert sorted(rows) == names


def test_the_cookbook_is_about_all_phases_of_a_cell() -> None:
    phases = {rule.phase for file in FILES for rule in read(file).rules}
    assert phases == set(Phase) - {Phase.HANDOFF}, "handing over needs a second cell"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_its_own_tests_pass_and_meet_each_rule(file: Path) -> None:
    document = read(file)
    assert document.policy == file.stem
    assert document.title
    trees = validation.trees_of(document)
    cases.run(document, trees)
    for rule in document.rules:
        others = tuple(r for r in document.rules if r is not rule)
        without = document.model_copy(update={"rules": others})
        with pytest.raises(Invalid, match=f"{slot_of(rule.phase, rule.then)}: expected"):
            cases.run(without, trees)
