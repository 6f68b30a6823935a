"""A ledger's facts as flat rows, for tools that ask tables: one row a fact, with its account."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from domain.commands import RequestReservation, SetQuota, SubmitJob
from domain.fact import Fact
from domain.ledger import Accepted, Round
from streams.reader import LedgerReader

COLUMNS: Final = (
    "round",
    "at_ms",
    "number",
    "fact",
    "account",
    "job",
    "node",
    "reservation",
    "attempt",
    "reason",
    "command_source",
    "command_id",
    "actor",
    "body",
)
"""`number`: the fact's place in its round; `body`: all of it as JSON; "" and 0: it has none."""

INTEGERS: Final = ("round", "at_ms", "number", "attempt")
BATCH: Final = 10_000

Row = dict[str, str | int]

_body: Final = msgspec.json.Decoder(dict[str, Any]).decode


class FactRows:
    """Reads rounds from a ledger's start, and knows whose each job and reservation is."""

    def __init__(self) -> None:
        self._owner_of_queue: dict[str, str] = {}
        self._owner_of_job: dict[str, str] = {}
        self._owner_of_reservation: dict[str, str] = {}

    def of(self, round: Round) -> Iterator[Row]:
        bodies = {n: _body(c.data) for n, c in enumerate(round.commands) if c.type in _OWNERS}
        refused = {refusal.command for refusal in round.refusals}.union(round.duplicates)
        for index, body in bodies.items():
            if index not in refused:
                self._learn(round.commands[index].type, body)
        for number, fact in enumerate(round.facts):
            yield self._row(round, number, fact, bodies)

    def _learn(self, type_: str, body: dict[str, Any]) -> None:
        if type_ == SetQuota.__name__:
            for queue in body.get("queues", ()):
                self._owner_of_queue[queue["queue"]] = body["account"]
        elif type_ == SubmitJob.__name__:
            self._owner_of_job[body["job"]] = self._owner_of_queue.get(body["queue"], "")
        else:
            self._owner_of_reservation[body["reservation"]] = body["account"]

    def _row(self, round: Round, number: int, fact: Fact, bodies: dict[int, dict[str, Any]]) -> Row:
        at = getattr(fact, "command", None)
        command: Accepted | None = None if at is None else round.commands[at]
        body = bodies.get(-1 if at is None else at, {})
        if command is not None and not body:
            body = _body(command.data)
        job = str(getattr(fact, "job", None) or body.get("job", ""))
        reservation = str(getattr(fact, "reservation", None) or body.get("reservation", "") or "")
        account = self._owner_of_job.get(job) or self._owner_of_reservation.get(reservation, "")
        return {
            "round": round.header.round,
            "at_ms": round.header.now_ms,
            "number": number,
            "fact": type(fact).__name__,
            "account": account or str(body.get("account", "")),
            "job": job,
            "node": str(getattr(fact, "node", None) or body.get("node", "")),
            "reservation": reservation,
            "attempt": int(getattr(fact, "attempt", 0)),
            "reason": str(getattr(fact, "reason", "")),
            "command_source": "" if command is None else command.source,
            "command_id": "" if command is None else command.id,
            "actor": "" if command is None else command.actor,
            "body": msgspec.json.encode(fact).decode(),
        }


_OWNERS: Final = {SetQuota.__name__, SubmitJob.__name__, RequestReservation.__name__}


async def batches(reader: LedgerReader, account: str | None) -> AsyncIterator[list[Row]]:
    """Rows of all believed facts, or of one account's, some thousands at a time."""
    rows, known = [], FactRows()
    async for believed in reader.read():
        rows += [r for r in known.of(believed.round) if account in (None, r["account"])]
        if len(rows) >= BATCH:
            yield rows
            rows = []
    yield rows


class NdjsonFile:
    """One JSON object a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("x", encoding="utf-8")

    def write(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def close(self) -> None:
        self._file.close()


class ParquetFile:
    """Raises ImportError without pyarrow, which the extra `parquet` brings."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        types = [pyarrow.int64() if c in INTEGERS else pyarrow.string() for c in COLUMNS]
        self._schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
        self._table = pyarrow.Table
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")

    def write(self, rows: Iterable[Row]) -> None:
        self._writer.write_table(self._table.from_pylist(list(rows), schema=self._schema))

    def close(self) -> None:
        self._writer.close()
