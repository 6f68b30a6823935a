"""Snapshots of a cell: the states of its entities, from which all else is derived."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from domain import (
    accounting,
    budgets,
    delays,
    estimates,
    maintenance,
    ordering,
    promises,
    quota,
)
from domain.commands import RegisterNode, RequestReservation, SubmitJob
from domain.facts import MixEntry
from domain.jobs import Job
from domain.ledger import Head
from domain.policies import signals
from domain.policies.state import Policy
from domain.pool import guarding
from domain.quota import Account, Queue
from domain.reservations import Reservation
from domain.rules import count_keys
from domain.runs import Run
from domain.shapes import Shape
from domain.slots import charge, count_started, take_parts
from domain.specs import PolicyParameters, Quota

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.ports import Snapshots

FORM: Final = 5
SAVED_AFTER: Final = 5_000
"""Facts after which the state is saved: a restart folds no more, in seconds."""
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode


class DamagedSnapshot(Exception):
    """The snapshot is not one, or not the one that it says it is."""


def whole(
    kept: Snapshots, name: str, make: type[Cell], not_after: int | None = None
) -> Iterator[tuple[Cell, int]]:
    """Cells of a name from the snapshots that are whole, and the positions that they name.

    Newest first, from the newest up to a round on.
    """
    while (found := kept.latest(not_after)) is not None:
        round, position, state = found
        try:
            cell = load(state, make)
        except DamagedSnapshot:
            cell = None
        if cell is not None and cell.name == name and cell.head.round == round:
            yield cell, position
        not_after = round - 1


class Saving:
    """Saves the state of a cell after so many facts, or as many as there are live jobs if those are
    more: so a snapshot costs the same for each fact, however many jobs there are.

    Roles that share a folder save once among them.
    """

    def __init__(self, snapshots: Snapshots | None, begin: int, facts: int | None = None) -> None:
        """`begin`: the round of the cell now."""
        self._snapshots = snapshots
        self._begin = begin
        self._after = SAVED_AFTER if facts is None else facts
        self._facts = 0

    def went_on(self, cell: Cell, facts: int, position: int) -> None:
        """So many facts were applied; the last of their records is at that position."""
        self._facts += facts
        if self._snapshots is None or self._facts < max(self._after, len(cell.jobs)):
            return
        round = cell.head.round
        if self._snapshots.newest() <= self._begin:  # nobody else has saved since
            self._snapshots.save(round, position, cell.snapshot())
        self._facts, self._begin = 0, round


def dump(cell: Cell) -> bytes:
    body = _pack(
        {
            "form": FORM,
            "name": cell.name,
            "now_ms": cell.now_ms,
            "head": (cell.head.round, cell.head.hash),
            "inputs": sorted(cell.inputs.items()),
            "policy": (cell.policy_version, cell.policy.model_dump_json()),
            "next": (cell.next_node, cell.next_job, cell.next_shape, cell.next_queue),
            "memory": cell.memory.state(),
            "accounts": [a.state() for a in cell.accounts.values()],
            "queues": [q.state() for q in cell.queues.values()],
            "nodes": [(*n.state(), _waiting(n.waiting)) for n in cell.nodes.values()],
            "shapes": [s.state() for s in cell.shapes.values()],
            "jobs": [j.state() for j in cell.jobs.values()],
            "reservations": [r.state() for r in cell.reservations.values()],
            "maintenances": [m.state() for m in cell.maintenances.values()],
            "books": [cell.books[id_].state() for id_ in sorted(cell.books)],
            "delays": [d.state() for _, d in sorted(cell.delays.items())],
            "pool": [(e.kind, e.state()) for e in cell.pool.entities()],
            "mix": cell.mix.state(),
            "estimates": cell.estimates.state(),
            "policies": [p.state() for _, p in sorted(cell.policies.items())],
            "signals": cell.signals.state(),
            "runtimes": [cell.runtimes[kind].state() for kind in sorted(cell.runtimes)],
            "pledges": [p.state() for _, p in sorted(cell.pledges.items())],
            "digest": cell.digest(),
        }
    )
    return hashlib.sha256(body).digest() + body


def _waiting(holders: list[Run | Reservation]) -> list[tuple[str, str]]:
    """Who waits for slots of a node, first come first."""
    return [("job", h.job.id) if isinstance(h, Run) else ("res", h.id) for h in holders]


def load(data: bytes, make: type[Cell]) -> Cell:
    if hashlib.sha256(data[32:]).digest() != data[:32]:
        raise DamagedSnapshot("its bytes do not have the hash at their head")
    body: dict[str, Any] = _unpack(data[32:])
    if body["form"] != FORM:
        raise DamagedSnapshot(f"form {body['form']!r} is not {FORM}")
    cell = make(body["name"])
    cell.now_ms = body["now_ms"]
    cell.believe(Head(*body["head"]), dict(body["inputs"]))
    cell.policy_version, policy = body["policy"]
    cell.policy = PolicyParameters.model_validate_json(policy)
    cell.rates.update(quota.rates_of(cell.policy))
    cell.next_node, cell.next_job, cell.next_shape, cell.next_queue = body["next"]
    cell.memory.restore(*body["memory"])
    cell.mix.version, cell.mix.due, entries = body["mix"]
    cell.mix.entries = msgspec.convert(entries, list[MixEntry])
    _load_accounts(cell, body["accounts"], body["queues"])
    cell.policies = {p.id: p for p in map(Policy.load, body.get("policies", []))}
    signals.restore(cell, body.get("signals", [[], []]))
    waiting = _load_nodes(cell, body["nodes"])
    for id_, key, *blocked in body["shapes"]:
        _load_shape(cell, id_, key, blocked)
    for state in body["reservations"]:
        _load_reservation(cell, state)
    for state in body["maintenances"]:
        one = maintenance.load(state)
        cell.maintenances[one.id] = one
    _load_jobs(cell, body["jobs"])
    cell.pool.restore(cell, body.get("pool", []))
    guarding.restore(cell)
    for node, holders in waiting:
        for kind, id_ in holders:
            holder = cell.jobs[id_].run if kind == "job" else cell.reservations[id_]
            assert holder is not None, "only an attempt can wait for slots"
            cell.nodes[node].waiting.append(holder)
    for id_, _, _, _, spent, *_ in body["accounts"]:
        budgets.load(cell.accounts[id_], spent, cell.now_ms)
    cell.rebuild_quota()
    cell.rulebook.dirty = bool(cell.policies)
    cell.rulebook.settle(cell)
    for node_ in cell.nodes.values():
        cell.fabric.update(node_)
    accounting.restore(cell, body["books"])
    promises.restore(cell, body["pledges"])
    delays.restore(cell, body["delays"])
    estimates.restore(cell, body["estimates"], body["runtimes"])
    for entity in cell.entities():
        cell.touch(entity)
    cell.close()
    cell.look_again()
    if cell.digest() != body["digest"]:
        raise DamagedSnapshot("the state in it does not have the digest in it")
    return cell


def _load_accounts(cell: Cell, accounts: list[Any], queues: list[Any]) -> None:
    for id_, *_ in accounts:
        cell.accounts[id_] = Account(id_, cell.rates)
    for id_, parent, weight, entries, _, held, *_ in accounts:
        account = cell.accounts[id_]
        if parent is not None:
            account.parent = cell.accounts[parent]
            account.parent.children[id_] = account
        account.weight = weight
        account.rights = dict(held)
        account.enter(tuple(Quota.model_validate_json(e) for e in entries), cell.now_ms)
    for id_, index, owner, weight, strict in queues:
        account = cell.accounts[owner]
        queue = Queue(id_, index, account, weight, strict)
        cell.queues[id_] = account.queues[id_] = queue


def _load_nodes(cell: Cell, states: list[Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    waiting = []
    for id_, index, spec, cordoned, draining, healthy, lost, lease, holders in states:
        node = cell.make_node(index, RegisterNode.model_validate_json(spec))
        cell.add_node(node)
        node.cordoned, node.draining = cordoned, draining
        node.healthy, node.lost = healthy, lost
        node.lease_until_ms = lease
        cell.timers.lease(node)
        cell.timers.leave(node)
        waiting.append((id_, [(kind, holder) for kind, holder in holders]))
    return waiting


def _load_shape(cell: Cell, id_: int, key: bytes, blocked: list[Any]) -> None:
    body = msgspec.json.encode({**msgspec.json.decode(key), "job": "x"})
    spec = SubmitJob.model_validate_json(body)
    shape = Shape(id_, key, spec, cell.queues[spec.queue])
    blocked, (shape.told_ms, shape.void) = blocked[:4], blocked[4:]
    shape.reason, shape.needed_milli, shape.available_milli, shape.where = blocked
    cell.link_shape(shape)


def _load_reservation(cell: Cell, state: list[Any]) -> None:
    _, spec, nodes, missing, active, closing, shortfall, *times = state
    reservation = Reservation(RequestReservation.model_validate_json(spec))
    reservation.nodes, reservation.missing = dict(nodes), dict(missing)
    reservation.active, reservation.closing = active, closing
    reservation.shortfall = shortfall
    cell.reservations[reservation.id] = reservation
    for id_, slots in nodes:
        node = cell.nodes[id_]
        held = slots - reservation.missing.get(id_, 0)
        node.held[reservation] = held
        node.used += held
    reservation.restore(*times)


def _load_jobs(cell: Cell, states: list[Any]) -> None:
    waiting = []
    for id_, number, shape, seniority, estimate, deadline, *counts, rest, run, growth in states:
        job = Job(id_, number, cell.shapes[shape], seniority, estimate)
        if deadline is not None:
            job.deadline_ms, job.hard, job.late = deadline
        job.attempts, job.attained_slot_s, job.lost_slot_s, *counts = counts
        job.failures, job.preemptions, *counts = counts
        job.preempted_on, job.preempted_then, job.resumes = counts
        job.not_before_ms = rest
        cell.jobs[id_] = job
        job.shape.jobs += 1
        if run is not None:
            job.run = _load_run(cell, job, run)
        if growth is not None:
            job.next_part, job.shrunk_ms, parts = growth
            for part, state in parts:
                job.parts[part] = _load_run(cell, job, state, part)
        if run is not None:
            continue
        job.shape.queue.waiting += 1
        if rest:
            cell.timers.back_off(job)
        else:
            job.rank = ordering.rank(cell, job)
            waiting.append(job)
    runs = (r for job in cell.jobs.values() for r in (job.run, *job.parts.values()))
    started = [run for run in runs if run is not None and run.started_ms]
    for run in sorted(started, key=lambda r: r.running_ms):  # as they were counted at first
        count_started(cell, run)
    for job in sorted(waiting, key=lambda j: (j.rank, j.seniority_ms, j.number)):
        job.shape.join(job)
        cell.timers.deadline(job)


def _load_run(cell: Cell, job: Job, state: list[Any], part: int = 0) -> Run:
    attempt, flavour, nodes, missing, started, running, checkpoint, stop_by, why, reported, res = (
        state
    )
    run = Run(job, attempt, flavour, [tuple(placed) for placed in nodes], part)
    run.started_ms, run.running_ms, run.checkpoint_ms = started, running, checkpoint
    run.stop_by_ms, run.stop_reason, run.reported = stop_by, why, frozenset(reported)
    run.missing = dict(missing)
    if res is not None:
        run.reservation = cell.reservations[res]
    for id_, slots in run.slots_by_node().items():
        node = cell.nodes[id_]
        if run.reservation is not None:
            run.reservation.used[id_] = run.reservation.used.get(id_, 0) + slots
            node.runs[run] = 0
        else:
            own = slots - run.missing.get(id_, 0)
            node.runs[run] = own
            node.used += own
    take_parts(cell, run, 1)
    count_keys(cell, run, 1)
    if run.reservation is None:
        charge(cell, run, run.size)
    if not started:
        cell.claims[run] = None
    elif run.stop_by_ms or not part:
        cell.timers.run(run)
    return run
