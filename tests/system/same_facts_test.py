"""Both profiles make the same facts of the same command file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from domain.ledger import Round, canonical
from infra.kafka import LocalKafka
from tests.system import profiles
from tests.system.command_file import messages

AMOUNT = 600


def told(round: Round) -> tuple[object, ...]:
    """A round without the commands' positions, which each profile counts in its own way."""
    header = round.header
    said = (round.facts, round.refusals, round.duplicates)
    commands = [(c.source, c.id, c.type, c.actor, c.time_ms, bytes(c.data)) for c in round.commands]
    return header.round, header.now_ms, canonical(said), commands, round.state


@pytest.mark.servers
@pytest.mark.parametrize("seed", [1, 2])
def test_the_same_facts(kafka: LocalKafka, fresh_name: str, tmp_path: Path, seed: int) -> None:
    async def go() -> tuple[profiles.Outcome, profiles.Outcome]:
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        sent = messages(seed, AMOUNT)
        one = await profiles.embedded(folders[0], fresh_name, sent)
        two = await profiles.distributed(
            folders[1], kafka.bootstrap, fresh_name, sent, len(one.rounds)
        )
        return one, two

    one, two = asyncio.run(go())
    for mine, theirs in zip(one.rounds, two.rounds, strict=True):
        assert told(mine) == told(theirs)
    assert [(x.code, x.field, x.value) for x in one.letters] == [
        (x.code, x.field, x.value) for x in two.letters
    ]
    _is_telling(one)


def _is_telling(outcome: profiles.Outcome) -> None:
    """Equality means little if little happened."""
    kinds = {type(fact).__name__ for round in outcome.rounds for fact in round.facts}
    assert {"JobAdmitted", "AttemptStarted", "JobFinished", "NodeRegistered"} <= kinds
    assert {"PreemptionDecided", "ShapeBlocked", "ReservationConfirmed"} <= kinds
    assert sum(len(r.duplicates) for r in outcome.rounds) > 10
    assert sum(len(r.refusals) for r in outcome.rounds) > 20
    assert len(outcome.letters) > 20
    taken = sum(len(r.commands) for r in outcome.rounds)
    assert taken + len(outcome.letters) == AMOUNT
