"""The tables of the read model, as data: both stores make their schema and statements of it.

A table's rows lie in partitions, in the order of their clustering columns. All text; `int` is 64
bit; `json` is a text column that holds a JSON value. The cell's name is the head of each partition
key, so that a store serves any number of cells.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from msgspec import Struct

Kind = Literal["text", "int", "bool", "json"]
Columns = dict[str, Kind]
Key = tuple[str | int, ...]

BUCKET: Final = 1000
"""Rounds (or jobs, by number) in one partition of a table that grows for ever."""


class Table(Struct, frozen=True):
    name: str
    partition: Columns
    clustering: Columns
    values: Columns

    @property
    def columns(self) -> Columns:
        return {**self.partition, **self.clustering, **self.values}

    @property
    def key(self) -> tuple[str, ...]:
        return (*self.partition, *self.clustering)


class Row(Struct, frozen=True):
    """A row as it is after a round; `values` None: it is no more."""

    table: str
    key: Key
    values: dict[str, Any] | None
    round: int


def table(name: str, partition: Columns, clustering: Columns, values: Columns) -> tuple[str, Table]:
    return name, Table(name, {"cell": "text", **partition}, clustering, values)


TABLES: Final[dict[str, Table]] = dict(
    (
        table(
            "summary",
            {},
            {},
            {
                "jobs_admitted": "int",
                "jobs_live": "int",
                "jobs_waiting": "int",
                "nodes": "int",
                "slots": "json",
                "free": "json",
                "policy_version": "int",
                "policy": "json",
            },
        ),
        table(
            "accounts",
            {},
            {"account": "text"},
            {"parent": "text", "weight": "int", "quotas": "json", "queues": "json"},
        ),
        table(
            "queues",
            {},
            {"queue": "text"},
            {
                "account": "text",
                "weight": "int",
                "strict": "bool",
                "waiting": "int",
                "usage_milli": "json",
            },
        ),
        table(
            "nodes",
            {},
            {"node": "text"},
            {
                "status": "text",
                "accelerator": "text",
                "kind": "text",
                "slots": "int",
                "used": "int",
                "region": "text",
                "cluster": "text",
                "block": "text",
                "rack": "text",
                "labels": "json",
                "lease_until_ms": "int",
                "jobs": "json",
                "reservations": "json",
            },
        ),
        table(
            "capacity",
            {"level": "text"},
            {"path": "text", "accelerator": "text"},
            {"nodes": "int", "slots": "int", "free": "int", "free_by_node": "json"},
        ),
        table(
            "shapes",
            {},
            {"shape": "int"},
            {
                "queue": "text",
                "account": "text",
                "tier": "text",
                "priority": "int",
                "waiting": "int",
                "reason": "text",
                "needed_milli": "int",
                "available_milli": "int",
                "bound": "text",
                "spec": "json",
            },
        ),
        table("shape_rules", {}, {"shape": "int"}, {"account": "text", "rules": "json"}),
        table(
            "policies",
            {},
            {"policy": "text"},
            {
                "active": "int",
                "trial": "json",
                "params": "json",
                "versions": "json",
                "document": "json",
            },
        ),
        table(
            "reservations",
            {},
            {"reservation": "text"},
            {
                "account": "text",
                "status": "text",
                "accelerator": "text",
                "count": "int",
                "slots": "int",
                "start_ms": "int",
                "end_ms": "int",
                "queues": "json",
                "nodes": "json",
                "used": "json",
                "shortfall_slots": "int",
            },
        ),
        table(
            "jobs",
            {"bucket": "int"},
            {"number": "int"},
            {
                "job": "text",
                "queue": "text",
                "account": "text",
                "tier": "text",
                "priority": "int",
                "state": "text",
                "shape": "int",
                "slots": "int",
                "submitted_ms": "int",
                "started_ms": "int",
                "ended_ms": "int",
                "attempts": "int",
                "preemptions": "int",
                "failures": "int",
                "nodes": "json",
                "accelerator": "text",
                "reason": "text",
            },
        ),
        table(
            "books",
            {},
            {"account": "text", "accelerator": "text"},
            {"since_ms": "int", "settled": "json", "rates_milli": "json"},
        ),
        table(
            "delays",
            {},
            {"tier": "text"},
            {"rank": "int", "total_ms": "int", "late": "int", "counts": "json"},
        ),
        table(
            "pledges",
            {},
            {"account": "text", "accelerator": "text"},
            {
                "from_ms": "int",
                "since_ms": "int",
                "due": "json",
                "delivered": "json",
                "due_rate": "json",
                "delivered_rate": "json",
                "starts": "json",
                "late": "json",
            },
        ),
        table(
            "windows",
            {"account": "text"},
            {"round": "int", "n": "int"},
            {"at_ms": "int", "body": "json"},
        ),
        table(
            "regions",
            {},
            {"region": "text"},
            {
                "own": "bool",
                "epoch": "int",
                "heard_ms": "int",
                "stale_ms": "int",
                "forgotten_ms": "int",
                "lost_since_ms": "int",
                "distance_s": "int",
                "free": "json",
                "most_on_a_node": "json",
                "to_spare_milli": "json",
                "outlook": "json",
                "datasets": "json",
                "flows": "json",
            },
        ),
        table(
            "hand_offs",
            {},
            {"job": "text", "kind": "text"},
            {"step": "text", "peer": "text", "hop": "int"},
        ),
        table(
            "rights",
            {},
            {"account": "text", "accelerator": "text"},
            {
                "granted_milli": "int",
                "held_milli": "int",
                "sent_milli": "json",
                "received_milli": "json",
            },
        ),
        table("job_numbers", {"job": "text"}, {}, {"number": "int"}),
        table(
            "job_events",
            {"job": "text"},
            {"round": "int", "n": "int"},
            {"at_ms": "int", "event": "text", "body": "json"},
        ),
        table(
            "shape_events",
            {"shape": "int"},
            {"round": "int", "n": "int"},
            {"at_ms": "int", "body": "json"},
        ),
        table(
            "decisions",
            {"bucket": "int"},
            {"round": "int", "n": "int"},
            {
                "at_ms": "int",
                "event": "text",
                "subject": "text",
                "account": "text",
                "body": "json",
            },
        ),
        table(
            "rounds",
            {"bucket": "int"},
            {"round": "int"},
            {
                "at_ms": "int",
                "commands": "int",
                "duplicates": "int",
                "refusals": "int",
                "facts": "json",
                "hash": "text",
                "state": "text",
            },
        ),
        table(
            "outcomes",
            {"source": "text", "id": "text"},
            {},
            {
                "round": "int",
                "n": "int",
                "type": "text",
                "actor": "text",
                "outcome": "text",
                "code": "text",
                "field": "text",
                "message": "text",
            },
        ),
    )
)
