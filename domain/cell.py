"""The state of one cell: the fold of its ledger.

`domain.evolve` is its only writer. The digest is a sum of one hash for each entity, kept up to date
by those that a round touched, so that its cost grows with the round and not with the state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from pydantic import BaseModel, TypeAdapter

from domain import accounting, budgets, ordering, promises, quota, shapes, snapshots
from domain import nodes as node_rules
from domain.accounting import Book
from domain.commands import COMMANDS, Command, SubmitJob
from domain.delays import Delays
from domain.estimates import EstimateModel, Kind, Seen
from domain.fabric import Fabric
from domain.jobs import Job
from domain.ledger import Accepted, Head, Header
from domain.maintenance import Maintenance
from domain.memory import Memory
from domain.mix import Mix
from domain.nodes import Node
from domain.parts import Parts
from domain.policies.rulebook import Rulebook
from domain.policies.ruling import Ruling
from domain.policies.state import Policy, Signals
from domain.pool.state import Pool, PoolEntity
from domain.preemption.preemptible import Preemptible
from domain.promises import Pledge
from domain.quota import Account, Queue
from domain.refusals import Refused
from domain.reservations import Reservation
from domain.rules import Keyed
from domain.runs import Run
from domain.shapes import Demand, Need, Shape, Split, key_of
from domain.specs import PolicyParameters
from domain.timers import Timers

Entity = (
    Account
    | Queue
    | Node
    | Job
    | Shape
    | Reservation
    | Maintenance
    | Book
    | Delays
    | Pledge
    | Mix
    | Seen
    | EstimateModel
    | Policy
    | Signals
    | PoolEntity
)
CommandT = TypeVar("CommandT", bound=BaseModel)

MAX_SHAPES: Final = 100_000
_MASK: Final = (1 << 128) - 1
_pack: Final = msgspec.msgpack.Encoder().encode
_validate: Final = {name: TypeAdapter(m).validator.validate_json for name, m in COMMANDS.items()}


def parse(accepted: Accepted) -> Command:
    """The command's model. Raises Refused if its body is not what intake lets through."""
    try:
        command: Command = _validate[accepted.type](bytes(accepted.data))
    except (KeyError, ValueError) as error:
        raise Refused("malformed", "", "the body is not a valid command of its type") from error
    return command


class Changes:
    """What a round changed: entities as they are now, and those that are no more."""

    __slots__ = ("gone", "touched")

    def __init__(self, touched: list[Entity], gone: list[Entity]) -> None:
        self.touched = touched
        self.gone = gone


class Cell:
    _policy_json: tuple[PolicyParameters | None, str] = (None, "")

    def __init__(self, name: str) -> None:
        self.name = name
        self.now_ms = 0
        self.head = Head()
        self.inputs: dict[str, int] = {}
        self.policy = PolicyParameters()
        self.policy_version = 0
        self.rates: quota.Rates = {}
        self.accounts: dict[str, Account] = {}
        self.queues: dict[str, Queue] = {}
        self.nodes: dict[str, Node] = {}
        self.jobs: dict[str, Job] = {}
        self.shapes: dict[int, Shape] = {}
        self.reservations: dict[str, Reservation] = {}
        self.maintenances: dict[str, Maintenance] = {}
        self.books: dict[tuple[str, str], Book] = {}
        """By owner and accelerator type: what became of every slot-second."""
        self.delays: dict[int, Delays] = {}
        self.pledges: dict[tuple[str, str], Pledge] = {}
        self.memory = Memory()
        self.pool = Pool()
        self.mix = Mix()
        self.runtimes: dict[Kind, Seen] = {}
        self.estimates = EstimateModel()
        self.policies: dict[str, Policy] = {}
        self.signals = Signals()
        self.next_node = self.next_job = self.next_shape = self.next_queue = 0
        # Derived from the above:
        self.rulebook = Rulebook()
        self.fabric = Fabric()
        self.parts = Parts(self)
        self.timers = Timers()
        self.shape_of: dict[bytes, Shape] = {}
        self.fallback_shapes: dict[int, Shape] = {}
        self.part_shapes = 0
        """Shapes whose replicas take shares of devices or host parts."""
        self.keyed: dict[str, Keyed] = {}
        """By key of an affinity: where attempts that name it lie."""
        self.preemptible: dict[tuple[str, int], Preemptible] = {}
        """Started attempts outside of reservations that may be preempted, by type and tier."""
        self.elastic: dict[Run, None] = {}
        """Started attempts that may grow."""
        self.wake_ms: int | None = None
        """The next round should be at this time or before: a claim will have waited enough."""
        self.quiet_rounds = 0
        """Rounds without a fact since blocked shapes take turns in search of victims."""
        self.unfinished = False
        """The last round did not try all that may start or claim: another one may at once."""
        self.claims: dict[Run, None] = {}
        """Attempts that have not started: they wait for slots, or start in the next round."""
        self.needs: dict[object, Need] = {}
        self.demands: dict[tuple[object, ...], Demand] = {}
        self.next_need = 0
        self.total: dict[str, int] = {}
        """Slots of the nodes that are not lost, by accelerator type."""
        self.in_pieces: dict[str, dict[Shape, None]] = {}
        """By accelerator type: shapes that were told that what is free is in pieces."""
        self.quota_edge_ms: int | None = None
        self.budgeted: list[Account] = []
        self.windows_until_ms = 0
        """All windows that ended before are closed."""
        # Of the round in progress:
        self.unsettled: dict[Pledge, None] = {}
        self._accepted: list[Accepted] = []
        self._commands: dict[int, Command] = {}
        self._splits: dict[int, Split] = {}
        self._touched: dict[Entity, bool] = {}
        self._gone: dict[Entity, None] = {}
        self._shown: dict[Entity, None] = {}
        self._sum = 0

    # --- the round in progress --------------------------------------------------------------------

    def open(self, header: Header, accepted: list[Accepted]) -> None:
        """Begin a round: time moves, and what is due to be forgotten or to rest no more is."""
        assert header.round == self.head.round + 1, "rounds have no gaps"
        assert header.now_ms >= self.now_ms, "time never goes back"
        self.now_ms = header.now_ms
        self._accepted = accepted
        self._commands.clear()
        self.wake_ms = None
        self.unfinished = False
        if self.quota_edge_ms is not None and self.quota_edge_ms <= self.now_ms:
            self.rebuild_quota()
        elif self.budgeted:
            budgets.look(self)
        self.memory.forget(self.now_ms - self.policy.duplicate_window_s * 1000)
        self.pool.forget(self)
        for job in self.timers.rested_jobs(self.now_ms):
            job.not_before_ms = 0
            self.join_line(job)
            self.touch(job)

    def wake(self, at_ms: int) -> None:
        self.wake_ms = at_ms if self.wake_ms is None else min(self.wake_ms, at_ms)

    def look_again(self) -> None:
        """Only the round that looked knows until when claims and growth wait: ask for one."""
        if self.elastic or any(d.waiting for d in self.demands.values()):
            self.wake(self.now_ms)

    def accepted(self, index: int) -> Accepted:
        return self._accepted[index]

    def parsed(self, index: int) -> Command:
        command = self._commands.get(index)
        if command is None:
            command = self._commands[index] = parse(self._accepted[index])
        return command

    def split(self, index: int) -> Split:
        """Of a submission; deciding and applying it ask alike."""
        found = self._splits.get(index)
        if found is None:
            found = self._splits[index] = shapes.split(self._accepted[index].data)
        return found

    def command(self, index: int, model: type[CommandT]) -> CommandT:
        command = self.parsed(index)
        assert isinstance(command, model), f"command {index} is not a {model.__name__}"
        return command

    def close(self) -> Changes:
        """End the round: bring it to book, the digest up to date, and tell what changed."""
        for entity in (*self._touched, *self._gone):
            if isinstance(entity, (Node, Job, Reservation)):
                accounting.bring(self, entity, entity in self._gone)
                if isinstance(entity, Reservation):
                    entity.settle(self.now_ms)
            elif isinstance(entity, Account):
                budgets.settle(entity, self.now_ms)
        accounting.mark_pieces(self)
        promises.settle(self)
        touched = [e for e in self._touched if e not in self._gone]
        for entity in touched:
            if not self._touched[entity]:
                continue
            mark = int.from_bytes(
                hashlib.blake2b(_pack((entity.kind, entity.state())), digest_size=16).digest()
            )
            self._sum += mark - entity.mark
            entity.mark = mark
        for entity in self._gone:
            self._sum -= entity.mark
        shown = [e for e in self._shown if e not in self._touched and e not in self._gone]
        changes = Changes(touched + shown, list(self._gone))
        self._shown.clear()
        self._touched.clear()
        self._gone.clear()
        self._commands.clear()  # of few it is asked again what they were; they are parsed again
        self._splits.clear()
        return changes

    def digest(self) -> str:
        """Digest of the whole state between rounds, in hex."""
        counters = (
            self.name,
            self.now_ms,
            self.next_node,
            self.next_job,
            self.next_shape,
            self.next_queue,
            self.policy_version,
            self._said_policy(),
        )
        total = (self._sum + self.memory.digest) & _MASK
        return hashlib.blake2b(_pack((counters, total.to_bytes(16))), digest_size=16).hexdigest()

    def _said_policy(self) -> str:
        policy, said = self._policy_json
        if policy is not self.policy:  # parameters never change in place
            said = self.policy.model_dump_json()
            self._policy_json = self.policy, said
        return said

    def believe(self, head: Head, inputs: dict[str, int]) -> None:
        """The round's record is the believed one."""
        self.head = head
        self.inputs = inputs

    def touch(self, entity: Entity) -> None:
        self._touched[entity] = True

    def show(self, entity: Entity) -> None:
        """Rules say something else about it: its state is as it was, what is shown is not."""
        self._shown[entity] = None

    def left(self, entity: Entity) -> None:
        self._gone[entity] = None

    # --- accounts and queues ----------------------------------------------------------------------

    def rebuild_quota(self) -> None:
        """The tree, its entries, or which of them are in their window: something is another."""
        for account in self.accounts.values():
            if account.take_effect(self.now_ms):
                self.touch(account)
                if self.policies:
                    self.rulebook.accounts_changed()
        quota.rebuild(self.accounts.values())
        edges = (m for a in self.accounts.values() for m in a.edges(self.now_ms))
        self.quota_edge_ms = min(edges, default=None)
        self.budgeted = [a for _, a in sorted(self.accounts.items()) if a.budgets]
        budgets.look(self)
        promises.reconsider(self)

    # --- nodes ------------------------------------------------------------------------------------

    def add_node(self, node: Node) -> None:
        self.nodes[node.id] = node
        self.fabric.add(node)
        self._count_total(node, 1)

    def drop_node(self, node: Node) -> None:
        del self.nodes[node.id]
        self.fabric.remove(node)
        self.timers.no_lease(node)
        self._touched.pop(node, None)
        self._count_total(node, -1)

    def _count_total(self, node: Node, by: int) -> None:
        accelerator = node.spec.accelerator
        self.total[accelerator] = self.total.get(accelerator, 0) + by * node.class_.slots

    def changed_node(self, node: Node) -> None:
        self.fabric.update(node)
        self._touched[node] = True

    def used_node(self, node: Node) -> None:
        """Others lie on the node than before: no part of its state, so its digest stands."""
        self.fabric.update(node)
        self._touched.setdefault(node, False)

    # --- shapes -----------------------------------------------------------------------------------

    def check_shape(self, key: bytes, accepted: Accepted) -> SubmitJob:
        """A job of this new shape. Raises Refused if it can never be run here."""
        if len(self.shapes) >= MAX_SHAPES:
            raise Refused("too_many_shapes", "", f"a cell holds at most {MAX_SHAPES} live shapes")
        spec = parse(accepted)
        assert isinstance(spec, SubmitJob), "only a SubmitJob has a shape"
        queue = self.queues.get(spec.queue)
        if queue is None:
            raise Refused("unknown_queue", "queue", f"no queue {spec.queue!r} is known")
        if spec.reservation is not None:
            reservation = self.reservations.get(spec.reservation)
            if reservation is None or reservation.is_over:
                rule = f"no live reservation {spec.reservation!r}"
                raise Refused("unknown_reservation", "reservation", rule)
            if spec.queue not in reservation.spec.queues:
                rule = "the reservation does not name this queue"
                raise Refused("not_in_reservation", "reservation", rule)
            if any(g.share_milli < node_rules.WHOLE for g in spec.groups):
                rule = "a reservation holds whole slots: its jobs share no devices"
                raise Refused("not_in_reservation", "groups", rule)
        return spec

    def add_shape(self, key: bytes) -> Shape:
        body = msgspec.json.decode(key)
        spec = SubmitJob.model_validate_json(msgspec.json.encode({**body, "job": "x"}))
        shape = Shape(self.next_shape, key, spec, self.queues[spec.queue])
        self.next_shape += 1
        self.link_shape(shape)
        self.touch(shape)
        return shape

    def link_shape(self, shape: Shape) -> None:
        """Enter the shape into the tables, and find or make what it needs."""
        self.shapes[shape.id] = shape
        self.shape_of[shape.key] = shape
        self.part_shapes += not shape.plain
        shape.obey(self.rulebook.rule(self, shape.spec, shape.queue))
        self._join_demand(shape)
        accounting.told(self, shape)

    def relink_shape(self, shape: Shape, ruling: Ruling) -> None:
        """Rules of policies say something else of the shape from now on."""
        self.show(shape)
        if shape.ruling.about_places == ruling.about_places:
            shape.obey(ruling)
            return
        self._leave_demand(shape)
        shape.demand.waiting -= shape.waiting
        self.fallback_shapes.pop(shape.id, None)
        shape.obey(ruling)
        self._join_demand(shape)
        shape.demand.waiting += shape.waiting

    def _join_demand(self, shape: Shape) -> None:
        spec, ruling = shape.spec, shape.ruling
        needs: list[Need] = []
        for flavour in spec.flavours:
            by = flavour.accelerator
            plain = shape.key_of(by) if self.policies else key_of(by, spec)
            key = plain if ruling.terms is None else (plain, ruling.terms)
            need = self.needs.get(key)
            if need is None:
                need = Need(key, self.next_need, flavour.accelerator, spec, ruling.terms)
                self.needs[key] = need
                self.next_need += 1
            needs.append(need)
        account = shape.queue.account
        alike: tuple[object, ...] = (account.id, spec.reservation, *(n.id for n in needs))
        alike = (*alike, *shape.waits_s)
        if ruling.held or ruling.ceiling is not None:
            alike = (*alike, ruling.held, ruling.ceiling, ruling.ceiling_by)
        demand = self.demands.get(alike)
        if demand is None:
            size = sum(g.count * g.slots * g.share_milli for g in spec.groups)
            demand = self.demands[alike] = Demand(alike, account, spec, needs, size)
            demand.held, demand.ceiling = ruling.held, ruling.ceiling
            demand.ceiling_by = ruling.ceiling_by
            for need in needs:
                need.uses += 1
        shape.demand = demand
        if spec.reservation is None:
            promises.enlist(self, shape)
        demand.enter(shape)
        if shape.ripens:
            self.fallback_shapes[shape.id] = shape

    def leave_shape(self, shape: Shape) -> None:
        """A job of the shape is at its end; the last one takes the shape with it."""
        shape.jobs -= 1
        if not shape.jobs:
            del self.shapes[shape.id]
            del self.shape_of[shape.key]
            self.part_shapes -= not shape.plain
            self.fallback_shapes.pop(shape.id, None)
            accounting.told(self, shape)
            self._leave_demand(shape)
            self.left(shape)
            shape.end()

    def join_line(self, job: Job) -> None:
        job.rank = ordering.rank(self, job)
        job.shape.join(job)
        self.timers.deadline(job)

    def reorder(self) -> None:
        """The policy's order may have changed: form all lines anew."""
        for shape in self.shapes.values():
            queued = [j for j in (e[3] for e in (*shape.line, *shape.returned)) if j.queued]
            jobs = [j for j in dict.fromkeys(queued) if j.shape is shape]
            for job in jobs:
                shape.leave(job)
                job.rank = ordering.rank(self, job)
            shape.line.clear()
            shape.returned.clear()
            for job in sorted(jobs, key=lambda j: (j.rank, j.seniority_ms, j.number)):
                shape.join(job)

    def _leave_demand(self, shape: Shape) -> None:
        demand = shape.demand
        demand.leave(shape)
        if not demand.shapes:
            del self.demands[demand.key]
            for need in demand.needs:
                need.uses -= 1
                if not need.uses:
                    del self.needs[need.key]

    # --- snapshots --------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """All of the state between rounds."""
        return snapshots.dump(self)

    @staticmethod
    def restore(data: bytes) -> Cell:
        """The cell of a snapshot. Raises DamagedSnapshot if the digest inside is not its own."""
        return snapshots.load(data, Cell)

    def entities(self) -> Iterable[Entity]:
        tables: tuple[dict[Any, Any], ...] = (
            self.accounts,
            self.queues,
            self.nodes,
            self.shapes,
            self.jobs,
            self.reservations,
            self.maintenances,
            self.books,
            self.delays,
            self.runtimes,
            self.pledges,
        )
        for table in tables:
            yield from table.values()
        yield from self.pool.entities()
        if self.mix.version:
            yield self.mix
        if self.estimates.ends:
            yield self.estimates
        yield from self.policies.values()
        if self.signals.values or self.signals.reported:
            yield self.signals

    def make_node(self, index: int, spec: Any) -> Node:
        return node_rules.make(self.fabric, index, spec)
