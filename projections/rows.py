"""What the read model says of one round: rows of the entities that it touched, and its history.

Pure: the same round on the same cell gives the same rows, however often it is projected. Amounts of
quota are in thousandths of slots (`_milli`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from domain import facts
from domain.accounting import Book
from domain.cell import Cell, Changes, Entity
from domain.delays import Delays
from domain.fabric import Domain
from domain.jobs import Job
from domain.ledger import Head, Round
from domain.nodes import Node
from domain.policies import explain
from domain.policies.state import Policy
from domain.pool import facts as pool_facts
from domain.pool import guard_facts
from domain.promises import Pledge
from domain.quota import UNLIMITED, Account, Queue
from domain.reservations import Reservation
from domain.shapes import Shape, split
from domain.specs import LEVELS, TIERS
from projections import kpis, pool_rows, promised
from projections.tables import BUCKET, Row

Values = dict[str, Any]

ENDS: Final = {
    facts.JobFinished: "finished",
    facts.JobFailed: "failed",
    facts.JobCancelled: "cancelled",
    pool_facts.HandoffReleased: "handed_over",
    pool_facts.HandoffLapsed: "lapsed",
    guard_facts.JobLeft: "taken_over",
}
Left = pool_facts.HandoffReleased | pool_facts.HandoffLapsed | guard_facts.JobLeft
"""The job is not the cell's any more, or never was."""
DECISIONS: Final = (facts.AttemptStarted, facts.JobClaimed, facts.PreemptionDecided)
OF_A_JOB: Final = "job"


def project(cell: Cell, round: Round, head: Head, changes: Changes) -> list[Row]:
    """Rows after the round; `cell` is the state after it."""
    made = _Rows(cell, round, head, changes)
    made.history()
    for entity in changes.gone:
        made.gone(entity)
    for entity in _with_kin(changes):  # after what has gone: one of the same name may be there anew
        made.entity(entity)
    for table, key, values in pool_rows.rows(cell, changes):
        made.put(table, key, values)
    made.capacity(changes)
    made.put("summary", (), summary(cell))
    return list(made.rows.values())


def _with_kin(changes: Changes) -> dict[Entity, None]:
    """What was touched, and what shows in its rows what was touched: each once."""
    found: dict[Entity, None] = {}
    for entity in changes.touched:
        found[entity] = None
    for entity in (*changes.touched, *changes.gone):
        if isinstance(entity, Job):
            found[entity.shape] = None
            found[entity.shape.queue] = None
        elif isinstance(entity, Account):
            for queue in entity.queues.values():
                found[queue] = None
            _add_family(entity, found)
    for entity in changes.gone:
        found.pop(entity, None)
    return found


def _add_family(account: Account, found: dict[Entity, None]) -> None:
    """What an account uses changes what its parents use, and what its kin have lent."""
    above = account.parent
    while above is not None:
        known = above in found and all(c in found for c in above.children.values())
        found[above] = None
        if known:
            return
        for child in above.children.values():
            found[child] = None
        above = above.parent


class _Rows:
    def __init__(self, cell: Cell, round: Round, head: Head, changes: Changes) -> None:
        self.cell = cell
        self.left = {(e.kind, e.id): e for e in changes.gone if isinstance(e, Job | Reservation)}
        """What the round ended, which facts before its end speak of."""
        self.round = round
        self.head = head
        self.number = round.header.round
        self.at_ms = round.header.now_ms
        self.rows: dict[tuple[object, ...], Row] = {}
        self.ends = {
            fact.job: (ENDS[type(fact)], getattr(fact, "reason", ""))
            for fact in round.facts
            if isinstance(fact, facts.JobFinished | facts.JobFailed | facts.JobCancelled | Left)
        }
        """By job: how it ended in this round."""

    def put(self, table: str, key: tuple[str | int, ...], values: Values | None) -> None:
        whole = (self.cell.name, *key)
        self.rows[(table, *whole)] = Row(table, whole, values, self.number)

    # --- history ----------------------------------------------------------------------------------

    def history(self) -> None:
        round = self.round
        kinds: dict[str, int] = {}
        for n, fact in enumerate(round.facts):
            kind = type(fact).__name__
            kinds[kind] = kinds.get(kind, 0) + 1
            body = msgspec.to_builtins(fact)
            del body["t"]
            self._event(n, kind, fact, body)
        values = {
            "at_ms": self.at_ms,
            "commands": len(round.commands),
            "duplicates": len(round.duplicates),
            "refusals": len(round.refusals),
            "facts": kinds,
            "hash": self.head.hash,
            "state": round.state,
        }
        self.put("rounds", (self.number // BUCKET, self.number), values)
        self._outcomes()

    def _event(self, n: int, kind: str, fact: facts.AnyFact, body: Values) -> None:
        event = {"at_ms": self.at_ms, "event": kind, "body": body}
        if isinstance(fact, facts.ShapeBlocked):
            values = {"at_ms": self.at_ms, "body": body}
            self.put("shape_events", (fact.shape, self.number, n), values)
            return
        if isinstance(fact, facts.SlaWindowClosed):
            values = {"at_ms": self.at_ms, "body": body}
            self.put("windows", (fact.account, self.number, n), values)
            return
        job = self._job_of(fact)
        if job is not None:
            self.put("job_events", (job, self.number, n), event)
        if isinstance(fact, DECISIONS):
            subject = fact.preemptor if isinstance(fact, facts.PreemptionDecided) else fact.job
            key = (self.number // BUCKET, self.number, n)
            account = self._account_of(fact, subject)
            self.put("decisions", key, {**event, "subject": subject, "account": account})
        if isinstance(fact, facts.PreemptionDecided):
            for victim in fact.victims:
                # A victim learns rule and cost, and not for whom it had to go.
                told = {"cause": fact.cause, "cost_slot_s": victim.cost_slot_s}
                self.put("job_events", (victim.job, self.number, n), {**event, "body": told})

    def _job_of(self, fact: facts.AnyFact) -> str | None:
        if isinstance(fact, facts.JobAdmitted):
            name: str = split(self.round.commands[fact.command].data)[1]["job"]
            return name
        if isinstance(fact, facts.JobAmended):
            amended: str = msgspec.json.decode(self.round.commands[fact.command].data)["job"]
            return amended
        return getattr(fact, OF_A_JOB, None)

    def _account_of(self, fact: facts.AnyFact, subject: str) -> str:
        """Whose claim was decided on; nobody's if an operator asked."""
        if isinstance(fact, facts.PreemptionDecided) and fact.cause == "operator":
            return ""
        if isinstance(fact, facts.PreemptionDecided) and fact.cause == "reservation":
            found = self.cell.reservations.get(subject) or self.left["reservation", subject]
            assert isinstance(found, Reservation), "it is kept by its kind"
            return found.spec.account
        job = self.cell.jobs.get(subject) or self.left["job", subject]
        assert isinstance(job, Job), "it is kept by its kind"
        return job.shape.queue.account.id

    def _outcomes(self) -> None:
        refused = {r.command: r for r in self.round.refusals}
        duplicates = set(self.round.duplicates)
        for n, command in enumerate(self.round.commands):
            if n in duplicates:
                continue  # the answer stands already
            refusal = refused.get(n)
            values = {
                "round": self.number,
                "n": n,
                "type": command.type,
                "actor": command.actor,
                "outcome": "refused" if refusal else "accepted",
                "code": refusal.code if refusal else None,
                "field": refusal.field if refusal else None,
                "message": refusal.message if refusal else None,
            }
            self.put("outcomes", (command.source, command.id), values)

    # --- entities ---------------------------------------------------------------------------------

    def entity(self, entity: Entity) -> None:
        match entity:
            case Account():
                self.put("accounts", (entity.id,), account(entity))
            case Queue():
                self._queue(entity)
            case Node():
                self.put("nodes", (entity.id,), node(entity))
            case Job():
                self._job(entity)
            case Shape():
                self.put("shapes", (entity.id,), shape(entity))
                self._rules(entity)
            case Policy():
                self.put("policies", (entity.id,), explain.policy(entity))
            case Reservation():
                self.put("reservations", (entity.id,), reservation(entity))
            case Book():
                self.put("books", entity.id, kpis.book(entity))
            case Pledge():
                self.put("pledges", entity.id, promised.pledge(entity))
            case Delays():
                self.put("delays", (TIERS[entity.id].value,), kpis.delays(entity))

    def gone(self, entity: Entity) -> None:
        match entity:
            case Job():
                self._ended(entity)
            case Queue():
                self.put("queues", (entity.id,), None)
            case Node():
                self.put("nodes", (entity.id,), None)
            case Shape():
                self.put("shapes", (entity.id,), None)
                if self.cell.policies:
                    self.put("shape_rules", (entity.id,), None)
            case Reservation():
                ended = {**reservation(entity), "status": "ended"}
                self.put("reservations", (entity.id,), ended)
            case Account():
                self.put("accounts", (entity.id,), None)

    def _rules(self, entity: Shape) -> None:
        """Rules of policies that hold for the shape; no row where there never was a policy."""
        if self.cell.policies:
            told = explain.rules_of(self.cell, entity)
            values = {"account": entity.queue.account.id, "rules": told}
            self.put("shape_rules", (entity.id,), values)

    def _queue(self, entity: Queue) -> None:
        values = {
            "account": entity.account.id,
            "weight": entity.weight,
            "strict": entity.strict,
            "waiting": entity.waiting,
            "usage_milli": {t: u for t, u in sorted(entity.usage.items()) if u},
        }
        self.put("queues", (entity.id,), values)

    def _job(self, entity: Job) -> None:
        state = entity.status.name.lower()
        if self.cell.pool.guards.held_back(entity.id):
            state = "ending"
        self._put_job(entity, state, None, "")

    def _ended(self, entity: Job) -> None:
        state, reason = self.ends[entity.id]
        self._put_job(entity, state, self.at_ms, reason)

    def _put_job(self, entity: Job, state: str, ended_ms: int | None, reason: str) -> None:
        run, demand = entity.run, entity.shape
        values = {
            "job": entity.id,
            "queue": demand.queue.id,
            "account": demand.queue.account.id,
            "tier": TIERS[demand.tier].value,
            "priority": demand.priority,
            "state": state,
            "shape": demand.id,
            "slots": demand.slots,
            "submitted_ms": entity.seniority_ms,
            "started_ms": run.started_ms if run and run.started_ms else None,
            "ended_ms": ended_ms,
            "attempts": entity.attempts,
            "preemptions": entity.preemptions,
            "failures": entity.failures,
            "nodes": [list(p) for r in (run, *entity.parts.values()) for p in r.nodes]
            if run
            else [],
            "accelerator": run.accelerator if run else None,
            "reason": reason or (run.stop_reason if run else ""),
        }
        self.put("jobs", (entity.number // BUCKET, entity.number), values)
        self.put("job_numbers", (entity.id,), {"number": entity.number})

    def capacity(self, changes: Changes) -> None:
        domains: dict[Domain, set[str]] = {}
        for entity in (*changes.gone, *changes.touched):
            if not isinstance(entity, Node):
                continue
            domain: Domain | None = entity.rack
            while domain is not None:
                domains.setdefault(domain, set()).add(entity.class_.accelerator)
                domain = domain.parent
        for place, types in domains.items():
            level = LEVELS[place.level].value
            for accelerator, values in capacity(self.cell, place):
                types.discard(accelerator)
                self.put("capacity", (level, place.name, accelerator), values)
            for accelerator in sorted(types):
                self.put("capacity", (level, place.name, accelerator), None)


def summary(cell: Cell) -> Values:
    free: dict[str, int] = {}
    for class_ in cell.fabric.classes.values():
        free[class_.accelerator] = free.get(class_.accelerator, 0) + class_.free
    return {
        "jobs_admitted": cell.next_job,
        "jobs_live": len(cell.jobs),
        "jobs_waiting": sum(q.waiting for q in cell.queues.values()),
        "nodes": len(cell.nodes),
        "slots": {t: n for t, n in sorted(cell.total.items()) if n},
        "free": {t: n for t, n in sorted(free.items()) if cell.total.get(t)},
        "policy_version": cell.policy_version,
        "policy": cell.policy.model_dump(mode="json"),
    }


def account(entity: Account) -> Values:
    types = sorted(
        entity.nominal.keys() | entity.subtree.keys() | {t for t, u in entity.usage.items() if u}
    )
    return {
        "parent": entity.parent.id if entity.parent else None,
        "weight": entity.weight,
        "quotas": {t: _quota(entity, t) for t in types},
        "queues": sorted(entity.queues),
    }


def _quota(entity: Account, accelerator: str) -> Values:
    available = entity.available(accelerator)
    entries = [e for e in entity.entries if entity.priced(e.accelerator)[0] == accelerator]
    return {
        "entries": [e.model_dump(mode="json", exclude_defaults=True) for e in entries],
        "nominal_milli": entity.nominal.get(accelerator, 0),
        "borrowing_limit_milli": entity.borrowing_limit.get(accelerator),
        "lending_limit_milli": entity.lending_limit.get(accelerator),
        "subtree_milli": entity.subtree.get(accelerator, 0),
        "own_milli": entity.own.get(accelerator, 0),
        "used_milli": entity.usage.get(accelerator, 0),
        "borrowed_milli": entity.borrowed(accelerator),
        "lent_milli": entity.lent(accelerator),
        "available_milli": available if abs(available) < UNLIMITED // 2 else None,
    }


def node(entity: Node) -> Values:
    spec = entity.spec
    return {
        "status": entity.status,
        "accelerator": spec.accelerator,
        "kind": spec.kind,
        "slots": spec.slots,
        "used": entity.used,
        "region": spec.path.region,
        "cluster": spec.path.cluster,
        "block": spec.path.block,
        "rack": spec.path.rack,
        "labels": dict(sorted(spec.labels.items())),
        "lease_until_ms": entity.lease_until_ms,
        "jobs": sorted(run.job.id for run in entity.runs),
        "reservations": {r.id: n for r, n in sorted(entity.held.items(), key=lambda h: h[0].id)},
    }


def shape(entity: Shape) -> Values:
    spec = entity.spec.model_dump(mode="json", exclude_defaults=True)
    del spec["job"]
    return {
        "queue": entity.queue.id,
        "account": entity.queue.account.id,
        "tier": TIERS[entity.tier].value,
        "priority": entity.priority,
        "waiting": entity.waiting,
        "reason": entity.reason if entity.waiting else "",
        "needed_milli": entity.needed_milli,
        "available_milli": entity.available_milli,
        "bound": entity.where,
        "spec": spec,
    }


def reservation(entity: Reservation) -> Values:
    spec = entity.spec
    return {
        "account": spec.account,
        "status": entity.status,
        "accelerator": spec.accelerator,
        "count": spec.count,
        "slots": spec.slots,
        "start_ms": entity.window.start_ms,
        "end_ms": entity.window.end_ms,
        "queues": list(spec.queues),
        "nodes": dict(sorted(entity.nodes.items())),
        "used": dict(sorted(entity.used.items())),
        "shortfall_slots": entity.shortfall,
    }


def capacity(cell: Cell, domain: Domain) -> Iterator[tuple[str, Values]]:
    """By accelerator type: nodes, slots, and how many nodes have how many slots free."""
    by_type: dict[str, Values] = {}
    for id_ in sorted(domain.counts):
        class_ = cell.fabric.classes[id_]
        found = by_type.setdefault(
            class_.accelerator, {"nodes": 0, "slots": 0, "free": 0, "free_by_node": {}}
        )
        counts = domain.counts[id_]
        found["nodes"] += sum(counts)
        found["slots"] += sum(counts) * class_.slots
        found["free"] += domain.free[id_]
        for k, count in enumerate(counts):
            if k and count:
                key = str(k)
                found["free_by_node"][key] = found["free_by_node"].get(key, 0) + count
    yield from by_type.items()
