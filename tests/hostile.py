"""Hostile and malformed messages, each with what makes it bad: none may pass intake.

`messages` is a generator without chance, so that the same thousand is sent everywhere. It needs
nothing but an `open` intake; `other_tenants` needs one that knows who is speaking.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count, cycle, islice
from typing import Any

from domain.commands import SubmitJob
from domain.ports import Message
from domain.specs import Flavour, ReplicaGroup
from streams.envelope import STRUCTURED, Sign, format_time_ms, structured

HEADERS = (("content-type", STRUCTURED.encode()),)
TIME_MS = 1_735_689_600_000
GOOD: dict[str, Any] = {
    "job": "j",
    "queue": "q",
    "groups": [{"slots": 1}],
    "flavours": [{"accelerator": "a"}],
}


def event(number: int, data: object = None, **attributes: object) -> bytes:
    """A structured event: a good SubmitJob but for what is given."""
    members = {
        "specversion": "1.0",
        "type": "aquifer.SubmitJob.v1",
        "source": "urn:hostile",
        "id": f"hostile-{number}",
        "time": format_time_ms(TIME_MS),
        "data": GOOD if data is None else data,
    } | attributes
    return json.dumps({k: v for k, v in members.items() if v is not ...}).encode()


def _with(number: int, **fields: object) -> bytes:
    return event(number, {k: v for k, v in (GOOD | fields).items() if v is not ...})


def _raw(number: int, old: str, new: bytes) -> bytes:
    """A good event whose text `old` is replaced by bytes that no encoder writes."""
    value = event(number)
    assert old.encode() in value
    return value.replace(old.encode(), new, 1)


def _deep(number: int, levels: int) -> bytes:
    nested = "[" * levels + "]" * levels
    return _raw(number, '"j"', nested.encode())


KINDS: dict[str, Callable[[int], bytes]] = {
    # wrong types and fields
    "slots is a string": lambda n: _with(n, groups=[{"slots": "8"}]),
    "slots is true": lambda n: _with(n, groups=[{"slots": True}]),
    "slots is null": lambda n: _with(n, groups=[{"slots": None}]),
    "slots is negative": lambda n: _with(n, groups=[{"slots": -1}]),
    "slots past the bound": lambda n: _with(n, groups=[{"slots": 65 + n}]),
    "count is zero": lambda n: _with(n, groups=[{"count": 0}]),
    "groups is an object": lambda n: _with(n, groups={"slots": 1}),
    "no groups": lambda n: _with(n, groups=[]),
    "too many groups": lambda n: _with(n, groups=[{"name": f"g{i}"} for i in range(17 + n % 50)]),
    "two groups of a name": lambda n: _with(n, groups=[{"slots": 1}, {"slots": 2}]),
    "two equal flavours": lambda n: _with(n, flavours=[{"accelerator": "a"}] * 2),
    "a share of two devices": lambda n: _with(n, groups=[{"slots": 2, "share_milli": 500}]),
    "no queue": lambda n: _with(n, queue=...),
    "job is a number": lambda n: _with(n, job=n),
    "job is an array": lambda n: _with(n, job=["j"]),
    "job has a slash": lambda n: _with(n, job=f"../{n}"),
    "job has a terminal escape": lambda n: _with(n, job=f"\x1b[31m{n}"),
    "job has markup": lambda n: _with(n, job=f"<script>{n}</script>"),
    "job is empty": lambda n: _with(n, job=""),
    "job is too long": lambda n: _with(n, job="j" * (129 + n)),
    "job ends in a newline": lambda n: _with(n, job="j\n"),
    "queue in full width": lambda n: _with(n, queue="\uff51"),
    "unknown tier": lambda n: _with(n, tier=f"platinum{n}"),
    "unknown field": lambda n: _with(n, **{f"actor{n}": "root"}),
    "unknown field of bad text": lambda n: _with(n, **{"\x1b]0;" * 50: n}),
    "many unknown fields": lambda n: _with(n, **{f"f{i}": i for i in range(500 + n)}),
    "label of control characters": lambda n: _with(n, labels={"a": "\x00"}),
    "too many labels": lambda n: _with(n, labels={f"l{i}": "" for i in range(33 + n % 90)}),
    "type of another command": lambda n: _with(n, type="CancelJob"),
    "data is null": lambda n: _raw(n, json.dumps(GOOD), b"null"),
    "data is an array": lambda n: event(n, [GOOD]),
    "data is a string": lambda n: event(n, json.dumps(GOOD)),
    # numbers
    "NaN": lambda n: _raw(n, "1}", b"NaN}"),
    "Infinity": lambda n: _raw(n, "1}", b"-Infinity}"),
    "a float": lambda n: _raw(n, "1}", b"1.0}"),
    "an exponent": lambda n: _raw(n, "1}", b"1e400}"),
    "a huge integer": lambda n: _raw(n, "1}", b"9" * (20 + n) + b"}"),
    "an integer past 64 bits": lambda n: _raw(n, "1}", b"9223372036854775808}"),
    "a huge unknown number": lambda n: _with(n, priority=10**18),
    # JSON
    "not JSON": lambda n: b"\x00\x01\x02" + bytes([n % 256]),
    "empty": lambda n: b"",
    "cut short": lambda n: event(n)[: 20 + n % 150],
    "more after the end": lambda n: event(n) + b"{}",
    "two documents": lambda n: event(n) + b"\n" + event(n),
    "a bare number": lambda n: b"%d" % n,
    "a byte order mark": lambda n: b"\xef\xbb\xbf" + event(n),
    "bad UTF-8": lambda n: _raw(n, '"j"', b'"\xff\xfe"'),
    "overlong UTF-8": lambda n: _raw(n, '"j"', b'"\xc0\xaf"'),
    "UTF-16": lambda n: event(n).decode().encode("utf-16"),
    "half a surrogate pair": lambda n: _raw(n, '"j"', rb'"\ud800"'),
    "raw control characters": lambda n: _raw(n, '"j"', b'"\x01"'),
    "duplicate key in the body": lambda n: _raw(n, '"job"', b'"job": "k", "job"'),
    "duplicate key in the event": lambda n: _raw(n, '"data"', b'"id": "other", "data"'),
    "duplicate key, escaped": lambda n: _raw(n, '"job"', rb'"\u006aob": "k", "job"'),
    "deep": lambda n: _deep(n, 17 + n),
    "very deep": lambda n: _deep(n, 30_000),
    "deep and open": lambda n: b'{"a":' * (5_000 + n),
    "huge": lambda n: _with(n, labels={"l": "x" * (64 * 1024)}),
    "a megabyte less a bit": lambda n: event(n, source="s" * 900_000),
    # envelope
    "unknown version": lambda n: event(n, type=f"aquifer.SubmitJob.v{2 + n}"),
    "version zero": lambda n: event(n, type="aquifer.SubmitJob.v0"),
    "unknown type": lambda n: event(n, type=f"aquifer.Drop{n}.v1"),
    "a fact as command": lambda n: event(n, type="aquifer.JobAdmitted.v1"),
    "a class name": lambda n: event(n, type="builtins.eval"),
    "type is a number": lambda n: event(n, type=n),
    "no type": lambda n: event(n, type=...),
    "no id": lambda n: event(n, id=...),
    "empty id": lambda n: event(n, id=""),
    "long id": lambda n: event(n, id="i" * (257 + n)),
    "id is an object": lambda n: event(n, id={"$ne": ""}),
    "source with newline": lambda n: event(n, source="a\nb"),
    "no time": lambda n: event(n, time=...),
    "time without a zone": lambda n: event(n, time="2025-01-01T00:00:00"),
    "no such day": lambda n: event(n, time="2025-02-30T00:00:00Z"),
    "time before the epoch": lambda n: event(n, time="0001-01-01T00:00:00+23:59"),
    "time is a number": lambda n: event(n, time=TIME_MS + n),
    "no data": lambda n: event(n, data=...),
    "data in base64": lambda n: event(n, data=..., data_base64="e30="),
    "specversion 0.3": lambda n: event(n, specversion="0.3"),
    "XML": lambda n: event(n, datacontenttype="application/xml"),
}


def _odd_headers() -> Iterator[tuple[str, Message]]:
    """Messages that are bad for their headers."""
    value = json.dumps(GOOD).encode()
    for number in count():
        binary = (
            ("ce_specversion", b"1.0"),
            ("ce_type", b"aquifer.SubmitJob.v1"),
            ("ce_source", b"urn:hostile"),
            ("ce_id", b"binary-%d" % number),
            ("ce_time", format_time_ms(TIME_MS).encode()),
        )
        yield "no headers", Message(event(number))
        yield "a batch", Message(b"[]", (("content-type", b"application/cloudevents-batch+json"),))
        yield "attribute missing", Message(value, binary[: 1 + number % 4])
        yield "attribute twice", Message(value, (*binary, binary[1 + number % 4]))
        yield "attribute in bad UTF-8", Message(value, (*binary[:3], ("ce_id", b"\xff"), binary[4]))
        yield "too many headers", Message(event(number), HEADERS + (("x", b""),) * (32 + number))
        yield "a huge header", Message(event(number), (*HEADERS, ("x", b"x" * (2_000 + number))))
        yield "a body that is no object", Message(b"[]", binary)
        yield "a header of a type", Message(value, (*binary, ("content-type", b"text/html")))


def messages(amount: int) -> Iterator[tuple[str, Message]]:
    """(what makes it bad, the message), in turn through all kinds."""
    headers = _odd_headers()

    def all_() -> Iterator[tuple[str, Message]]:
        for number, (name, make) in enumerate(cycle(KINDS.items())):
            yield name, Message(make(number), HEADERS)
            if number % 8 == 0:
                yield next(headers)

    return islice(all_(), amount)


def other_tenants(amount: int, key_id: str, sign: Sign) -> Iterator[tuple[str, Message]]:
    """Well-signed submissions by one tenant to the queue of another, and unsigned ones."""
    for number in range(amount):
        command = SubmitJob(
            job=f"mine.{number}",
            queue=f"theirs.{number}",
            groups=(ReplicaGroup(),),
            flavours=(Flavour(accelerator="a"),),
        )
        id_ = f"tenant-{number}"
        if number % 3 == 0:
            message = structured(command, source="urn:mine", id=id_, time_ms=TIME_MS)
            yield "unsigned", message
            continue
        signed = structured(
            command, source="urn:mine", id=id_, time_ms=TIME_MS, key_id=key_id, sign=sign
        )
        if number % 3 == 1:
            yield "another tenant's queue", signed
        else:
            value = signed.value.replace(b"theirs", b"mine.x")
            yield "changed after signing", Message(value, signed.headers, signed.key)
