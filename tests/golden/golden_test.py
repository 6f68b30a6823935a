"""Ledgers of released versions: still read, still folded to their states, still decided alike."""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path

import pytest

from domain.cell import Cell
from domain.evolve import evolve
from domain.facts import FACTS
from domain.ledger import ENGINE, Head, extends, unseal
from streams import replay
from streams.export import FileLog
from streams.keys import KeyRing
from tests.golden import make
from tests.golden.script import NAME, Hour

LEDGERS = sorted(make.FOLDER.glob("*.ndjson"))
HINT = "deciding has changed: raise ENGINE and add a ledger (before a release: make it again)"


def ring(ledger: Path) -> KeyRing:
    return KeyRing.load(ledger.with_name(f"{ledger.name}.keys.json"))


@functools.cache
def hour() -> Hour:
    made = Hour()
    made.run()
    return made


def test_there_is_a_ledger_of_each_engine_before_this_one() -> None:
    engines = {unseal(file.read_bytes().splitlines()[0], None)[0].header.engine for file in LEDGERS}
    assert engines >= set(range(1, ENGINE))


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_it_folds_to_the_states_that_it_names(ledger: Path) -> None:
    """`evolve` compares the digest of each state; a restored cell goes on to the same."""
    *records, _ = ledger.read_bytes().splitlines()
    cell, believers = Cell(NAME), ring(ledger)
    for number, record in enumerate(records, 1):
        round, head = unseal(record, believers)
        assert extends(cell.head, round, NAME)
        evolve(cell, round, head)
        if number == len(records) // 2:
            cell = Cell.restore(cell.snapshot())
    assert FileLog(ledger).end() == cell.head != Head()


@pytest.mark.parametrize("ledger", LEDGERS, ids=lambda path: path.stem)
def test_it_is_intact_and_decided_alike(ledger: Path) -> None:
    """Rounds of this engine are decided again to the same bytes, those of others are folded."""
    verdict = asyncio.run(_verdict(ledger))
    assert verdict.broken is None, f"{verdict.broken}; {HINT}"
    first = unseal(ledger.read_bytes().splitlines()[0], None)[0]
    again = first.header.engine == ENGINE
    assert verdict.folded == (0 if again else verdict.rounds)
    assert verdict.rounds > 100


async def _verdict(ledger: Path) -> replay.Verdict:
    return [v async for v in replay.verify_file(FileLog(ledger), ring(ledger))][-1]


def test_the_script_makes_all_kinds_of_facts() -> None:
    made = {type(fact).__name__ for round in hour().rounds for fact in round.facts}
    assert made == set(FACTS)
    assert sum(len(round.duplicates) for round in hour().rounds) == 1
    assert {"quarantined", "unknown_type", "never_fits", "unknown_queue"} <= {
        refusal.code for round in hour().rounds for refusal in round.refusals
    }


def test_the_script_is_deterministic() -> None:
    again = Hour()
    again.run()
    assert make.text_of(again) == make.text_of(hour())
