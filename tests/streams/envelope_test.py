"""The envelope: what a producer builds is what intake reads, in both modes."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.commands import COMMANDS, CancelJob, SubmitJob
from domain.ledger import canonical
from domain.ports import Message
from domain.specs import Flavour, ReplicaGroup
from streams import envelope
from streams.envelope import Malformed, binary, format_time_ms, parse, parse_time_ms, structured

SUBMIT = SubmitJob(
    job="j", queue="q", groups=(ReplicaGroup(slots=8),), flavours=(Flavour(accelerator="h100"),)
)


@pytest.mark.parametrize("build", [structured, binary])
def test_a_built_message_is_read_back(build: Callable[..., Message]) -> None:
    message = build(SUBMIT, source="urn:a", id="1", time_ms=1_735_689_600_123)
    event = parse(message)
    assert (event.model, event.source, event.id) == ("SubmitJob", "urn:a", "1")
    assert event.time_ms == 1_735_689_600_123
    assert bytes(event.data) == canonical(envelope.body_of(SUBMIT))
    assert (event.key, event.signature, event.actor) == (None, None, None)


def test_the_body_has_neither_defaults_nor_its_type() -> None:
    assert envelope.body_of(SUBMIT) == {
        "job": "j",
        "queue": "q",
        "groups": [{"slots": 8}],
        "flavours": [{"accelerator": "h100"}],
    }


def test_structured_mode_is_the_standard_json_form() -> None:
    message = structured(CancelJob(job="j"), source="urn:a", id="1", time_ms=0)
    assert dict(message.headers) == {"content-type": b"application/cloudevents+json"}
    assert json.loads(message.value) == {
        "specversion": "1.0",
        "type": "aquifer.CancelJob.v1",
        "source": "urn:a",
        "id": "1",
        "time": "1970-01-01T00:00:00.000Z",
        "datacontenttype": "application/json",
        "data": {"job": "j"},
    }


def test_binary_mode_has_the_attributes_in_headers() -> None:
    message = binary(CancelJob(job="j"), source="urn:a", id="1", time_ms=0)
    assert message.value == b'{"job":"j"}'
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_type": b"aquifer.CancelJob.v1",
        "ce_source": b"urn:a",
        "ce_id": b"1",
        "ce_time": b"1970-01-01T00:00:00.000Z",
        "content-type": b"application/json",
    }


def test_what_is_signed_is_exact() -> None:
    seen: list[bytes] = []

    def sign(data: bytes) -> bytes:
        seen.append(data)
        return b"\x01" * 64

    cancel = CancelJob(job="j")
    one = structured(cancel, source="s", id="1", time_ms=0, key_id="k", sign=sign)
    two = binary(cancel, source="s", id="1", time_ms=0, key_id="k", sign=sign)
    assert seen == [
        one.value,
        b'aquifer.CancelJob.v1\ns\n1\n1970-01-01T00:00:00.000Z\n{"job":"j"}',
    ]
    for message, signed in zip((one, two), seen, strict=True):
        event = parse(message)
        assert (event.key, event.signature, event.signed) == ("k", "01" * 64, signed)


def test_every_command_has_a_type() -> None:
    assert [envelope.model_of(envelope.type_of(name)) for name in COMMANDS] == list(COMMANDS)


def test_other_peoples_attributes_and_headers_are_let_pass() -> None:
    message = structured(CancelJob(job="j"), source="s", id="1", time_ms=0)
    members = json.loads(message.value) | {"traceparent": "00-1", "subject": "x", "partitionkey": 1}
    headers = (*message.headers, ("traceparent", b"\xff"), ("traceparent", b"2"))
    assert parse(Message(json.dumps(members).encode(), headers)).id == "1"


def test_content_type_may_have_parameters_and_any_case() -> None:
    message = structured(CancelJob(job="j"), source="s", id="1", time_ms=0)
    header = ("content-type", b"Application/CloudEvents+JSON; charset=UTF-8")
    assert parse(Message(message.value, (header,))).id == "1"


@given(st.integers(0, 253_402_300_799_999))
def test_times_survive(time_ms: int) -> None:
    assert parse_time_ms(format_time_ms(time_ms)) == time_ms


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01t00:00:00.5z", 500),
        ("1970-01-01T00:00:00.123999999Z", 123),
        ("1970-01-01T00:00:00-00:30", 1_800_000),
    ],
)
def test_any_rfc_3339_time_is_read(text: str, time_ms: int) -> None:
    assert parse_time_ms(text) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1970-01-01",
        "1970-01-01T00:00:00",
        "1970-01-01 00:00:00Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T23:59:60Z",
        "19700101T000000Z",
        "１970-01-01T00:00:00Z",
    ],
)
def test_other_times_are_not(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the message is of the standard library
        parse_time_ms(text)


@pytest.mark.parametrize(
    ("type_", "code"),
    [
        ("aquifer.SubmitJob.v2", "unknown_version"),
        ("aquifer.SubmitJob.v01", "unknown_version"),
        ("aquifer.Nothing.v1", "unknown_type"),
        ("SubmitJob", "unknown_type"),
        ("aquifer.SubmitJob.v1\n", "unknown_type"),
    ],
)
def test_types_that_are_not_known(type_: str, code: str) -> None:
    with pytest.raises(Malformed) as caught:
        envelope.model_of(type_)
    assert caught.value.code == code
