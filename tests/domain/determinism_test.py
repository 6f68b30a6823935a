"""The same commands give the same bytes: under any hash seed, in any process, re-decided or not."""

from __future__ import annotations

import pytest

from domain.cell import Cell
from domain.commands import COMMANDS
from domain.decide import decide
from domain.evolve import evolve
from domain.facts import FACTS
from domain.ledger import canonical, unseal
from tests.domain import interpreters
from tests.golden.script import Hour


@pytest.fixture(scope="module")
def hour() -> Hour:
    made = Hour()
    made.run()
    return made


def test_hash_seeds_and_interpreters_decide_the_same_bytes() -> None:
    found = interpreters.all_ledgers()
    assert len(set(found.values())) == 1, found


def test_the_hour_has_every_fact_and_every_command(hour: Hour) -> None:
    assert {type(f).__name__ for r in hour.rounds for f in r.facts} == FACTS.keys()
    assert {a.type for r in hour.rounds for a in r.commands} >= COMMANDS.keys()


def test_the_ledger_alone_gives_the_state_and_every_round_again(hour: Hour) -> None:
    """From bytes only: each round is decided anew, and its record is folded to the same state."""
    decider, folded = Cell(hour.cell.name), Cell(hour.cell.name)
    for number, record in enumerate(hour.records):
        round, head = unseal(record, None)
        assert canonical(decide(decider, round.header, round.commands)) == canonical(round)
        decider.believe(head, round.inputs)
        evolve(folded, round, head)
        assert decider.digest() == folded.digest() == round.state
        if number % 10 == 0:
            decider = Cell.restore(folded.snapshot())
    assert folded.head == hour.cell.head
    assert folded.snapshot() == hour.cell.snapshot()
