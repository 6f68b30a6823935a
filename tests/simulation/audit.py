"""What must hold once all has come to its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from domain.cell import Cell
from domain.evolve import evolve
from domain.snapshots import DamagedSnapshot
from projections import rows
from streams.kafka import LETTER_HEADER
from tests.simulation.disk import Contents, Disk, RowStore, SqlStore
from tests.simulation.loop import Violation

if TYPE_CHECKING:
    from tests.simulation.world import World


def finish(world: World) -> None:
    """Raises Violation."""
    check_answers(world)
    check_letters(world)
    check_deciders(world)
    check_read_model(world)
    check_snapshots(world)


def check_answers(world: World) -> None:
    """Whatever was acknowledged to a client has its answer, and each job its one end."""
    chain = world.chain
    for client in world.clients:
        for id_, item in client.acknowledged.items():
            if not item.valid:
                continue
            if (client.name, id_) not in chain.answers:
                raise Violation(f"{id_} was acknowledged and never answered")
            job = getattr(item.command, "job", None)
            submitted = type(item.command).__name__ == "SubmitJob"
            refused = (client.name, id_) in chain.refused
            if submitted and not refused and job not in chain.naive.ended:
                raise Violation(f"job {job} has no end")
    for at, partition in world.broker.partitions.items():
        for record in partition.records if at.topic.startswith("cmd") else ():
            if record.offset >= world.ends[at]:
                break
            event = _event(record)
            if event is not None and event not in chain.answers and event[0] == "fleet":
                raise Violation(f"the report {event} was never answered")


def _event(record: Any) -> tuple[str, str] | None:
    """Source and id of a structured message."""
    try:
        body = json.loads(record.value)
        return body["source"], body["id"]
    except (ValueError, KeyError, TypeError):
        return None


def check_letters(world: World) -> None:
    """A dead letter for each bad message, and none for a good one."""
    bad = set()
    for client in world.clients:
        for id_, item in client.acknowledged.items():
            if not item.valid:
                message = client._message(id_, item)
                bad.add((message.value, message.headers))
    expected = {
        (at.partition, record.offset)
        for at, partition in world.broker.partitions.items()
        if at.topic.startswith("cmd")
        for record in partition.records
        if (record.value, record.headers) in bad
    }
    found = set()
    for record in world.partition["dead"].records:
        (name, reason), *headers = record.headers
        assert name == LETTER_HEADER, "the reason comes first"
        why = json.loads(reason)
        found.add((why["partition"], why["offset"]))
        if (record.value, tuple(headers)) not in bad:
            raise Violation(f"a good message is a dead letter: {why}")
    if expected - found:
        raise Violation(f"bad messages at {sorted(expected - found)} have no dead letter")


def check_deciders(world: World) -> None:
    """Decider and projector have the state that the chain gives."""
    for process, cell in world.cells.items():
        state = cell() if process.alive else None
        if state is not None and state.digest() != world.chain.cell.digest():
            raise Violation(f"{process} has another state")


def check_read_model(world: World) -> None:
    """It is what a projection anew gives, and what the state itself shows."""
    fresh, cell = RowStore(Disk(), 0), Cell(world.chain.cell.name)
    for n, round in enumerate(world.chain.rounds, 1):
        head = world.chain.heads[n]
        for row in rows.project(cell, round, head, evolve(cell, round, head)):
            fresh.tables[row.table][row.key] = (row.round, row.values)
    expected = fresh.contents()
    for store in world.stores.values():
        found = store.contents()
        if isinstance(store, SqlStore):
            expected, found = _plain(expected), _plain(found)
        difference = same_rows(found, expected)
        if difference is not None:
            raise Violation(f"the read model differs: {difference}")
    check_rows_of_state(world.chain.cell, fresh)


def _plain(contents: Contents) -> Contents:
    """As JSON has it: no tuples."""
    return {
        name: {key: json.loads(json.dumps(values)) for key, values in table.items()}
        for name, table in contents.items()
    }


def same_rows(found: dict[str, dict[Any, Any]], fresh: dict[str, dict[Any, Any]]) -> str | None:
    """The first difference between two read models, if there is one."""
    for table, all_rows in fresh.items():
        if found[table] == all_rows:
            continue
        for key in sorted(all_rows.keys() | found[table].keys(), key=repr):
            if found[table].get(key) != all_rows.get(key):
                return f"{table} {key}: {found[table].get(key)}, and anew {all_rows.get(key)}"
    return None


def check_rows_of_state(cell: Cell, store: RowStore) -> None:
    """No change of the state was left out of the rows."""
    made: dict[tuple[str, Any], Any] = {("summary", (cell.name,)): rows.summary(cell)}
    made |= {("accounts", (cell.name, a.id)): rows.account(a) for a in cell.accounts.values()}
    made |= {("nodes", (cell.name, n.id)): rows.node(n) for n in cell.nodes.values()}
    made |= {("shapes", (cell.name, s.id)): rows.shape(s) for s in cell.shapes.values()}
    found = store.contents()
    for (table, key), values in made.items():
        if found[table].get(key) != values:
            raise Violation(f"{table} {key}: {found[table].get(key)}, and the state is {values}")


def check_snapshots(world: World) -> None:
    """From a whole snapshot on, the records give the same state."""
    chain = world.chain
    kept = world.snapshots.saved
    for number, position, state in kept[world.seed % len(kept) :][:1] if kept else ():
        try:
            cell = Cell.restore(state)
        except DamagedSnapshot:
            continue
        if chain.heads[number] != cell.head or chain.positions[number] > position:
            raise Violation(f"the snapshot of round {number} is not of the ledger")
        for n in range(number, len(chain.rounds)):
            evolve(cell, chain.rounds[n], chain.heads[n + 1])
        if cell.digest() != chain.cell.digest():
            raise Violation(f"the snapshot of round {number} leads to another state")
