"""Who may say what: nobody speaks for a name that is not their own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.commands import (
    COMMANDS,
    CancelJob,
    CancelReservation,
    Command,
    CordonNode,
    ReportAttempt,
    ReportNode,
    RequestReservation,
    SetQuota,
    SubmitJob,
)
from domain.ledger import Accepted
from domain.ports import DeadLetter, Message
from domain.specs import Flavour, ReplicaGroup
from streams.envelope import SIGNATURE, binary, structured
from streams.identity import RIGHTS, Actor, Identity, Role
from streams.intake import accept
from tests import hostile

KEYS = {name: Ed25519PrivateKey.from_private_bytes(name[0].encode() * 32) for name in "abox"}


def _actor(name: str, *roles: Role, **owned: tuple[str, ...]) -> Actor:
    public = KEYS[name].public_key().public_bytes_raw().hex()
    return Actor(actor=f"actor-{name}", keys={name: public}, roles=roles, **owned)


TABLE = Identity(
    (
        _actor("a", "producer", jobs=("a.*",), queues=("a.*", "shared"), reservations=("a.r",)),
        _actor("b", "agent", nodes=("n1", "n2")),
        _actor("o", "operator"),
    )
)


def say(
    speaker: str, command: Command, build: Callable[..., Message] = structured
) -> Accepted | DeadLetter:
    key = KEYS[speaker]
    message = build(command, source="s", id="1", time_ms=0, key_id=speaker, sign=key.sign)
    return accept(message, 0, 0, TABLE, 0)


def refused(answer: Accepted | DeadLetter) -> tuple[str, str]:
    assert isinstance(answer, DeadLetter)
    return answer.code, answer.field


def submit(job: str, queue: str) -> SubmitJob:
    return SubmitJob(
        job=job, queue=queue, groups=(ReplicaGroup(),), flavours=(Flavour(accelerator="a"),)
    )


def reserve(name: str, account: str, *queues: str) -> RequestReservation:
    return RequestReservation(
        reservation=name,
        account=account,
        accelerator="a",
        count=1,
        slots=1,
        start_ms=1,
        end_ms=2,
        queues=queues,
    )


@pytest.mark.parametrize("build", [structured, binary])
def test_the_ledger_learns_who_spoke(build: Callable[..., Message]) -> None:
    answer = say("a", submit("a.1", "shared"), build)
    assert isinstance(answer, Accepted)
    assert (answer.actor, answer.key) == ("actor-a", "a")
    assert answer.sig is not None
    assert len(bytes.fromhex(answer.sig)) == 64


@pytest.mark.parametrize("build", [structured, binary])
def test_a_changed_byte_is_not_signed(build: Callable[..., Message]) -> None:
    key = KEYS["a"]
    message = build(submit("a.1", "a.q"), source="s", id="1", time_ms=0, key_id="a", sign=key.sign)
    changed = Message(message.value.replace(b"a.1", b"a.2"), message.headers)
    assert refused(accept(changed, 0, 0, TABLE, 0)) == ("unauthenticated", "signature")


def test_an_attribute_in_a_header_is_signed_too() -> None:
    key = KEYS["a"]
    message = binary(CancelJob(job="a.1"), source="s", id="1", time_ms=0, key_id="a", sign=key.sign)
    headers = [(n, b"2" if n == "ce_id" else v) for n, v in message.headers]
    answer = accept(Message(message.value, tuple(headers)), 0, 0, TABLE, 0)
    assert refused(answer) == ("unauthenticated", "signature")


@pytest.mark.parametrize("signature", [b"", b"zz", b"00" * 64, b"00" * 63])
def test_bad_signatures(signature: bytes) -> None:
    message = structured(CancelJob(job="a.1"), source="s", id="1", time_ms=0, key_id="a")
    headers = (*message.headers, (SIGNATURE, signature))
    answer = accept(Message(message.value, headers), 0, 0, TABLE, 0)
    assert refused(answer) == ("unauthenticated", "signature")


def test_unsigned_and_unknown_speakers() -> None:
    message = structured(CancelJob(job="a.1"), source="s", id="1", time_ms=0)
    assert refused(accept(message, 0, 0, TABLE, 0)) == ("unauthenticated", "keyid")
    assert refused(say("x", CancelJob(job="a.1"))) == ("unauthenticated", "keyid")


def test_the_actor_header_counts_for_nothing_where_commands_are_signed() -> None:
    key = KEYS["a"]
    message = structured(
        SetQuota(account="a"), source="s", id="1", time_ms=0, key_id="a", sign=key.sign
    )
    named = Message(message.value, (*message.headers, ("aquifer-actor", b"actor-o")))
    assert refused(accept(named, 0, 0, TABLE, 0)) == ("forbidden", "type")


@pytest.mark.parametrize(
    ("speaker", "command", "field"),
    [
        ("a", submit("a.1", "b.q"), "queue"),
        ("a", submit("b.1", "a.q"), "job"),
        ("a", CancelJob(job="b.1"), "job"),
        ("a", CancelReservation(reservation="a.r2"), "reservation"),
        ("a", reserve("a.r", "a", "a.q"), "account"),
        ("a", CordonNode(node="n1"), "type"),
        ("a", ReportNode(node="n1"), "type"),
        ("b", ReportNode(node="n3"), "node"),
        ("b", ReportNode(node="n11"), "node"),
        ("b", ReportAttempt(job="j", attempt=1, state="failed", nodes=("n1", "n3")), "nodes"),
        ("b", ReportAttempt(job="j", attempt=1, state="failed"), "nodes"),
        ("b", submit("a.1", "a.q"), "type"),
    ],
)
def test_forbidden(speaker: str, command: Command, field: str) -> None:
    assert refused(say(speaker, command)) == ("forbidden", field)


@pytest.mark.parametrize(
    ("speaker", "command"),
    [
        ("a", submit("a.1", "a.q")),
        ("a", CancelReservation(reservation="a.r")),
        ("b", ReportNode(node="n2")),
        ("b", ReportAttempt(job="any", attempt=1, state="failed", nodes=("n1", "n2"))),
        ("o", submit("b.1", "b.q")),
        ("o", SetQuota(account="a")),
        ("o", ReportNode(node="n9")),
        ("o", reserve("r", "b", "b.q")),
    ],
)
def test_allowed(speaker: str, command: Command) -> None:
    assert isinstance(say(speaker, command), Accepted)


def test_every_command_has_its_right() -> None:
    assert RIGHTS.keys() == COMMANDS.keys()
    for name, (_, owned) in RIGHTS.items():
        assert owned.keys() <= COMMANDS[name].model_fields.keys()
        assert set(owned.values()) <= Actor.model_fields.keys()


def test_no_tenant_gets_anything_into_another_ones_queue() -> None:
    mine = _actor("a", "producer", jobs=("mine.*",), queues=("mine.*",))
    table = Identity((mine,))
    codes = {
        (name, refused(accept(message, 0, 0, table, 0)))
        for name, message in hostile.other_tenants(300, "a", KEYS["a"].sign)
    }
    assert codes == {
        ("unsigned", ("unauthenticated", "keyid")),
        ("another tenant's queue", ("forbidden", "queue")),
        ("changed after signing", ("unauthenticated", "signature")),
    }


def test_the_table_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "identity.json"
    public = KEYS["a"].public_key().public_bytes_raw().hex()
    actor = {"actor": "ann", "keys": {"a": public}, "roles": ["producer"], "jobs": ["*"]}
    path.write_text(json.dumps({"actors": [actor]}))
    message = structured(
        CancelJob(job="x"), source="s", id="1", time_ms=0, key_id="a", sign=KEYS["a"].sign
    )
    answer = accept(message, 0, 0, Identity.load(path), 0)
    assert isinstance(answer, Accepted)
    assert answer.actor == "ann"


@pytest.mark.parametrize(
    "actors",
    [
        [{"actor": "a", "keys": {"k": "00"}}],
        [{"actor": "a", "keys": {"k": "zz" * 32}}],
        [{"actor": "a", "roles": ["root"]}],
        [{"actor": "a", "queues": ["a*b"]}],
        [{"actor": "a", "keys": {"k": "01" * 32}}, {"actor": "b", "keys": {"k": "01" * 32}}],
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, actors: object) -> None:
    path = tmp_path / "identity.json"
    path.write_text(json.dumps({"actors": actors}))
    with pytest.raises(ValueError):  # noqa: PT011 - any of pydantic's or ours
        Identity.load(path)
