"""A thousand malformed, hostile and stolen commands amid good ones, through both profiles."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.commands import Command, SetQuota, SubmitJob
from domain.ports import Message
from domain.specs import Flavour, Queue, Quota, ReplicaGroup
from infra.kafka import LocalKafka
from streams.envelope import structured
from streams.identity import Actor, Identity
from tests import hostile
from tests.system import profiles
from tests.system.command_file import START_MS

BAD = 1000
GOOD = 400
KEYS = {name: Ed25519PrivateKey.from_private_bytes(name.encode() * 32) for name in "ao"}


def actor(name: str, role: str, **owned: tuple[str, ...]) -> Actor:
    public = KEYS[name].public_key().public_bytes_raw().hex()
    made = {"actor": f"actor-{name}", "keys": {name: public}, "roles": [role]}
    return Actor.model_validate({**made, **{n: list(v) for n, v in owned.items()}}, strict=False)


TABLE = Identity(
    (
        actor("a", "producer", jobs=("mine.*",), queues=("mine.*",)),
        actor("o", "operator"),
    )
)


def signed(command: Command, by: str, number: int) -> Message:
    return structured(
        command,
        source="good",
        id=f"good-{number}",
        time_ms=START_MS,
        key_id=by,
        sign=KEYS[by].sign,
    )


def good() -> Iterator[Message]:
    quota = (Quota(accelerator="a", nominal=8),)
    queues = (Queue(queue="mine.q"),)
    yield signed(SetQuota(account="mine", quotas=quota, queues=queues), "o", 0)
    for number in range(1, GOOD):
        command = SubmitJob(
            job=f"mine.{number}",
            queue="mine.q",
            groups=(ReplicaGroup(),),
            flavours=(Flavour(accelerator="a"),),
        )
        yield signed(command, "a", number)


def mixed() -> list[Message]:
    """Good ones in their order, bad ones anywhere among them."""
    stolen = [m for _, m in hostile.other_tenants(300, "a", KEYS["a"].sign)]
    bad = [m for _, m in hostile.messages(BAD - len(stolen))] + stolen
    rng = Random(1)
    rng.shuffle(bad)
    out = list(bad)
    places = sorted(rng.randrange(len(out) + 1) for _ in range(GOOD))
    for shift, (place, message) in enumerate(zip(places, good(), strict=True)):
        out.insert(place + shift, message)
    return out


def check(outcome: profiles.Outcome) -> None:
    decided = [c for round in outcome.rounds for c in round.commands]
    assert [c.id for c in decided] == [f"good-{n}" for n in range(GOOD)]
    assert {c.actor for c in decided} == {"actor-a", "actor-o"}
    assert not any(round.refusals for round in outcome.rounds)
    assert len(outcome.letters) == BAD
    assert len({(x.partition, x.offset) for x in outcome.letters}) == BAD
    for letter in outcome.letters:
        assert letter.code
        assert letter.message
    codes = {x.code for x in outcome.letters}
    assert {"forbidden", "unauthenticated", "invalid_utf8", "too_deep", "too_large"} <= codes
    assert {"unknown_type", "unknown_version", "duplicate_key", "invalid_json"} <= codes


def test_embedded(tmp_path: Path, fresh_name: str) -> None:
    check(asyncio.run(profiles.embedded(tmp_path, fresh_name, mixed(), TABLE)))


@pytest.mark.servers
def test_distributed(kafka: LocalKafka, tmp_path: Path, fresh_name: str) -> None:
    async def go() -> tuple[profiles.Outcome, profiles.Outcome]:
        folders = [tmp_path / "one", tmp_path / "two"]
        for folder in folders:
            folder.mkdir()
        one = await profiles.embedded(folders[0], fresh_name, mixed(), TABLE)
        rounds = len(one.rounds)
        two = await profiles.distributed(
            folders[1], kafka.bootstrap, fresh_name, mixed(), rounds, TABLE
        )
        return one, two

    one, two = asyncio.run(go())
    check(two)
    assert [(x.code, x.field, x.value) for x in one.letters] == [
        (x.code, x.field, x.value) for x in two.letters
    ]
