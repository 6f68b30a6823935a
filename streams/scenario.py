"""A scenario: what there is, what comes when, and what the jobs really need."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import Struct

from domain.commands import Command, RegisterNode, SetQuota, SubmitJob
from domain.ledger import canonical
from streams.agent import Work
from streams.envelope import body_of

Body = dict[str, Any]
"""A command's body in canonical form: plain JSON values without defaults."""

EPOCH_MS: Final = 1_735_689_600_000
"""Start of the virtual clock, unless told otherwise: 2025-01-01."""


class Arrival(Struct, frozen=True, gc=False):
    """A command on its way in."""

    at_ms: int
    """Since the scenario's start."""
    type: str
    body: Body


class Outage(Struct, frozen=True, gc=False):
    """The node falls silent, and comes back."""

    at_ms: int
    until_ms: int
    node: str


class Scenario(Struct):
    nodes: list[RegisterNode]
    """They register themselves at the start."""
    quotas: list[SetQuota]
    arrivals: list[Arrival]
    """In order of time."""
    work: dict[str, Work]
    """By job."""
    outages: list[Outage] = []


def arrival(at_ms: int, command: Command) -> Arrival:
    return Arrival(at_ms, type(command).__name__, body_of(command))


def checked_shape(shape: Body) -> Body:
    """A SubmitJob body without its job, in canonical form.

    Raises pydantic.ValidationError. Bodies made of it need no further check.
    """
    body = body_of(SubmitJob.model_validate_json(canonical({**shape, "job": "x"})))
    del body["job"]
    return body


def submission(
    at_ms: int,
    shape: Body,
    job: str,
    estimate_s: int | None = None,
    finish_by_ms: int | None = None,
) -> Arrival:
    """A job of a checked shape; parts of equal shapes are shared. A deadline is soft."""
    body = {**shape, "job": job}
    if estimate_s is not None:
        body["runtime"] = {**shape.get("runtime", {}), "estimate_s": estimate_s}
    if finish_by_ms is not None:
        body["deadline"] = {"finish_by_ms": finish_by_ms}
    return Arrival(at_ms, "SubmitJob", body)


def in_order(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Sorted by time; those of one moment stay as they were."""
    return sorted(arrivals, key=lambda a: a.at_ms)
