"""Intake: whatever comes is a command or a dead letter with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.cell import parse
from domain.commands import CancelJob, SubmitJob
from domain.ledger import Accepted, canonical
from domain.ports import DeadLetter, Message
from domain.specs import Flavour, ReplicaGroup, Runtime, Tier
from streams.envelope import STRUCTURED, body_of, structured
from streams.identity import Identity
from streams.intake import MAX_DEPTH, MAX_HEADER, MAX_HEADERS, MAX_VALUE, accept
from tests import hostile

OPEN = Identity()
HEADERS = (("content-type", STRUCTURED.encode()),)


def intake(message: Message) -> Accepted | DeadLetter:
    return accept(message, 3, 17, OPEN, 99)


def refusal(message: Message) -> DeadLetter:
    answer = intake(message)
    assert isinstance(answer, DeadLetter)
    return answer


def submit(**fields: Any) -> SubmitJob:
    return SubmitJob(
        job="j",
        queue="q",
        groups=(ReplicaGroup(slots=8),),
        flavours=(Flavour(accelerator="h100"),),
        **fields,
    )


def test_an_accepted_command_is_canonical_and_means_the_same() -> None:
    command = submit(tier=Tier.PREMIUM, labels={"b": "2", "a": "1"}, runtime=Runtime(estimate_s=60))
    full = command.model_dump(mode="json")  # defaults, type and all
    event = json.loads(hostile.event(1, full, source="urn:a", id="7"))
    answer = intake(Message(json.dumps(event, indent=3).encode(), HEADERS))
    assert isinstance(answer, Accepted)
    assert (answer.partition, answer.offset) == (3, 17)
    assert (answer.source, answer.id, answer.type) == ("urn:a", "7", "SubmitJob")
    assert (answer.actor, answer.time_ms) == ("anonymous", hostile.TIME_MS)
    assert bytes(answer.data) == canonical(body_of(command))
    assert parse(answer) == command


def test_the_gateway_names_the_actor_where_nothing_is_signed() -> None:
    message = structured(CancelJob(job="j"), source="s", id="1", time_ms=0)
    named = Message(message.value, (*message.headers, ("aquifer-actor", b"ann")))
    answer = intake(named)
    assert isinstance(answer, Accepted)
    assert answer.actor == "ann"


def test_a_dead_letter_is_the_whole_message_with_its_place() -> None:
    message = Message(b"\xff", (*HEADERS, ("x", b"\xfe")), b"key")
    letter = refusal(message)
    assert (letter.partition, letter.offset, letter.time_ms) == (3, 17, 99)
    assert (letter.value, letter.headers, letter.key) == (b"\xff", message.headers, b"key")
    assert letter.code == "invalid_utf8"


def _padded(size: int) -> Message:
    value = hostile.event(1, source="urn:a")
    return Message(value + b" " * (size - len(value)), HEADERS)


def _nested(levels: int) -> Message:
    """A message whose event is so deep, with as many brackets again beside it."""
    deep = "[" * (levels - 1) + "]" * (levels - 1)
    return Message(hostile.event(1, extra=json.loads(deep), more=[[], [], []] * 9), HEADERS)


def _with_headers(amount: int) -> Message:
    return Message(hostile.event(1), HEADERS + (("x", b""),) * (amount - 1))


def _with_header(size: int) -> Message:
    return Message(hostile.event(1), (*HEADERS, ("x", b"-" * (size - 1))))


@pytest.mark.parametrize(
    ("make", "limit", "code"),
    [
        (_padded, MAX_VALUE, "too_large"),
        (_nested, MAX_DEPTH, "too_deep"),
        (_with_headers, MAX_HEADERS, "too_large"),
        (_with_header, MAX_HEADER, "too_large"),
    ],
)
def test_limits_hold_at_the_bound_and_one_past_it(make: Any, limit: int, code: str) -> None:
    assert isinstance(intake(make(limit)), Accepted)
    assert refusal(make(limit + 1)).code == code


def test_brackets_within_strings_are_not_depth() -> None:
    fields = hostile.GOOD | {"labels": {"l": '[[[[[[[[[[{{{{{{{{{{"\\'}}
    assert isinstance(intake(Message(hostile.event(1, fields), HEADERS)), Accepted)


EXPECTED = {
    "slots is a string": ("invalid_field", "groups.0.slots"),
    "no queue": ("missing_field", "queue"),
    "unknown version": ("unknown_version", "type"),
    "unknown type": ("unknown_type", "type"),
    "bad UTF-8": ("invalid_utf8", "value"),
    "duplicate key in the body": ("duplicate_key", "value"),
    "duplicate key, escaped": ("duplicate_key", "value"),
    "NaN": ("not_an_integer", "value"),
    "a float": ("not_an_integer", "value"),
    "a huge integer": ("number_too_large", "value"),
    "very deep": ("too_deep", "value"),
    "huge": ("too_large", "value"),
    "no id": ("missing_field", "id"),
    "no time": ("missing_field", "time"),
    "attribute twice": ("duplicate_header", "ce_type"),
}


def test_a_thousand_hostile_messages() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for name, message in hostile.messages(1000):
        letter = refusal(message)
        assert letter.code, name
        assert letter.message, name
        shown = letter.code + letter.field + letter.message
        assert len(shown) < 512, name
        assert shown.replace("…", "").isascii(), name
        assert shown.isprintable(), name
        seen.setdefault(name, (letter.code, letter.field))
    assert EXPECTED.items() <= seen.items()
    assert len(seen) >= len(hostile.KINDS)


def test_hostile_messages_are_the_same_every_time() -> None:
    assert list(hostile.messages(300)) == list(hostile.messages(300))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
HEADER = st.tuples(
    st.sampled_from(["content-type", "ce_type", "ce_id", "aquifer-signature", "x"])
    | st.text(max_size=8),
    st.binary(max_size=40) | st.sampled_from([STRUCTURED.encode(), b"1.0", b"application/json"]),
)


def _always_answers(message: Message) -> None:
    answer = intake(message)
    if isinstance(answer, DeadLetter):
        assert answer.code
        assert answer.message
        assert answer.value == message.value
    else:
        assert canonical(body_of(parse(answer))) == bytes(answer.data)


@given(st.binary(max_size=300), st.lists(HEADER, max_size=8))
def test_any_bytes_are_answered(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    _always_answers(Message(value, tuple(headers)))


@given(st.dictionaries(st.sampled_from([*SubmitJob.model_fields, "x"]), JSON), JSON)
def test_any_body_is_answered(fields: dict[str, Any], attribute: Any) -> None:
    _always_answers(Message(hostile.event(1, hostile.GOOD | fields), HEADERS))
    for name in ("id", "source", "time", "type", "keyid", "specversion", "datacontenttype"):
        _always_answers(Message(hostile.event(1, **{name: attribute}), HEADERS))


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=3))
def test_any_changed_byte_is_answered(place: int, put: bytes) -> None:
    value = bytearray(hostile.event(1))
    place %= len(value)
    value[place : place + len(put)] = put
    _always_answers(Message(bytes(value), HEADERS))
