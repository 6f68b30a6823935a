"""Who may see and ask for what over HTTP: deny by default, one filter between store and answers.

Each reader has a token (only its hash is kept) and accounts: it sees what belongs to them and to
the accounts below them. An operator sees all. Without a table of readers the API is open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from domain.commands import (
    AmendJob,
    CancelJob,
    CancelReservation,
    Command,
    RequestReservation,
    SubmitJob,
)
from domain.specs import Name
from projections.problems import Problem, fields_of
from projections.store import Applied, Fields, Store
from projections.tables import BUCKET


class Reader(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    actor: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    token_sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    accounts: Annotated[tuple[Name, ...], Field(max_length=1000)] = ()
    operator: bool = False


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    readers: tuple[Reader, ...]


class Readers:
    def __init__(self, readers: tuple[Reader, ...]) -> None:
        """Raises ValueError for a token or an actor that is there twice."""
        self._by_hash = {reader.token_sha256: reader for reader in readers}
        if len(self._by_hash) < len(readers) or len({r.actor for r in readers}) < len(readers):
            raise ValueError("each reader has an actor and a token of its own")

    @staticmethod
    def load(path: Path) -> Readers:
        """Of a JSON file `{"readers": [...]}`. Raises OSError, ValueError; without any value."""
        try:
            table = _Table.model_validate(json.loads(path.read_bytes()))
        except ValidationError as error:
            rules = (f"{f['field']}: {f['rule']}" for f in fields_of(error))
            raise ValueError("; ".join(rules)) from None
        return Readers(table.readers)

    def find(self, authorization: str | None) -> Reader | None:
        """The reader of an Authorization header; None if it has none of ours."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        # The table is searched by the hash: how long that takes tells nothing about a token.
        return self._by_hash.get(hashlib.sha256(token.strip().encode()).hexdigest())


class Sight:
    """What one reader sees. `accounts` None: everything."""

    def __init__(self, actor: str, accounts: frozenset[str] | None) -> None:
        self.actor = actor
        self.accounts = accounts

    def shown(self, table: str, row: Fields | None) -> Fields | None:
        """The row as this reader may see it, or None."""
        if row is None or self.accounts is None:
            return row
        rule = RULES.get(table)
        return rule(self, row) if rule else None

    def owns(self, row: Fields) -> bool:
        return self.accounts is None or row["account"] in self.accounts


def _own(sight: Sight, row: Fields) -> Fields | None:
    return row if sight.owns(row) else None


def _own_account(sight: Sight, row: Fields) -> Fields | None:
    if not sight.owns(row):
        return None
    assert sight.accounts is not None, "who sees everything passes no rule"
    return row if row["parent"] in sight.accounts else {**row, "parent": None}


def _own_outcome(sight: Sight, row: Fields) -> Fields | None:
    return row if row["actor"] == sight.actor else None


def _own_decision(sight: Sight, row: Fields) -> Fields | None:
    return _unnamed_victims(sight, row) if sight.owns(row) else None


def _unnamed_victims(sight: Sight, row: Fields) -> Fields:
    """Whose jobs have to go is not for the one who makes them go, nor the other way round."""
    body: dict[str, Any] = row["body"]
    if "victims" not in body:
        return row
    victims = [{"cost_slot_s": victim["cost_slot_s"]} for victim in body["victims"]]
    return {**row, "body": {**body, "victims": victims}}


def _own_rules(sight: Sight, row: Fields) -> Fields | None:
    """What a rule asks for may name others; that it holds, and what it does, may not."""
    if not sight.owns(row):
        return None
    hidden = ("when", "places")
    rules = [{n: v for n, v in rule.items() if n not in hidden} for rule in row["rules"]]
    return {**row, "rules": rules}


def _operators(sight: Sight, row: Fields) -> Fields | None:
    return None


def _shared_node(sight: Sight, row: Fields) -> Fields:
    return {**row, "jobs": [], "reservations": {}}


def _plain(sight: Sight, row: Fields) -> Fields:
    return row


RULES: Final[dict[str, Callable[[Sight, Fields], Fields | None]]] = {
    "accounts": _own_account,
    "queues": _own,
    "shapes": _own,
    "reservations": _own,
    "jobs": _own,
    "books": _own,
    "shape_rules": _own_rules,
    "policies": _operators,
    "regions": _plain,
    "hand_offs": _operators,
    "rights": _own,
    "pledges": _own,
    "windows": _own,
    "decisions": _own_decision,
    "outcomes": _own_outcome,
    "nodes": _shared_node,
    "summary": _plain,
    "capacity": _plain,
    "delays": _plain,
    "rounds": _plain,
    # These are read on the way from a job that is seen.
    "job_numbers": _plain,
    "job_events": _unnamed_victims,
    "shape_events": _plain,
}


async def sight_of(reader: Reader | None, store: Store, cell: str) -> Sight:
    """What the reader sees now; None is the open API's caller."""
    if reader is None:
        return Sight("", None)
    if reader.operator:
        return Sight(reader.actor, None)
    children: dict[str, list[str]] = {}
    for row in await _all_accounts(store, cell):
        children.setdefault(row["parent"] or "", []).append(row["account"])
    seen: set[str] = set()
    todo = list(reader.accounts)
    while todo:
        account = todo.pop()
        if account not in seen:
            seen.add(account)
            todo.extend(children.get(account, ()))
    return Sight(reader.actor, frozenset(seen))


async def _all_accounts(store: Store, cell: str) -> list[Fields]:
    rows: list[Fields] = []
    while True:
        after = (rows[-1]["account"],) if rows else None
        more = await store.scan("accounts", (cell,), after=after, limit=1000)
        rows.extend(more)
        if len(more) < 1000:
            return rows


class Sights:
    """Sights by reader, good as long as the round is the newest one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, Sight]] = {}

    async def of(self, reader: Reader | None, store: Store, cell: str, applied: Applied) -> Sight:
        actor = reader.actor if reader else ""
        known = self._known.get(actor)
        if known is None or known[0] != applied.hash:
            known = self._known[actor] = (applied.hash, await sight_of(reader, store, cell))
        return known[1]


async def authorise(sight: Sight, store: Store, cell: str, command: Command) -> None:
    """Raises Problem unless the reader may give the command, as far as the read model knows."""
    if sight.accounts is None:
        return
    match command:
        case SubmitJob():
            rows = [await store.get("queues", (cell, command.queue))]
        case CancelJob() | AmendJob():
            rows = [await _job(store, cell, command.job)]
        case CancelReservation():
            rows = [await store.get("reservations", (cell, command.reservation))]
        case RequestReservation():
            rows = [{"account": command.account}]
            rows += [await store.get("queues", (cell, queue)) for queue in command.queues]
        case _:
            raise Problem(403, "forbidden", "only an operator gives this command")
    if not all(row is not None and sight.owns(row) for row in rows):
        raise Problem(403, "forbidden", "what the command names is not yours, or not there yet")


async def _job(store: Store, cell: str, job: str) -> Fields | None:
    known = await store.get("job_numbers", (cell, job))
    if known is None:
        return None
    number = known["number"]
    return await store.get("jobs", (cell, number // BUCKET, number))
