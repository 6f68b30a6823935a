"""Reservations: slots held for a window, usable by the queues that they name.

A reservation is bound to nodes `lead_s` before its window begins, not before: until then they do
other work, and a node that fails costs nothing. While it holds, jobs that name it are placed on its
slots and charge no quota. Of a recurring one, each window is bound anew; a job that did not end in
one goes on in the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import calendar, placement
from domain.commands import CancelReservation, RequestReservation
from domain.fact import Held
from domain.facts import (
    PreemptionDecided,
    ReservationActive,
    ReservationClaimed,
    ReservationClosing,
    ReservationConfirmed,
    ReservationEnded,
    ReservationMissed,
    ReservationUnbound,
)
from domain.policies import admission
from domain.preemption import claims, eviction
from domain.refusals import Refused
from domain.slots import freed as give_back
from domain.slots import runs_in
from domain.specs import LEVELS

if TYPE_CHECKING:
    from domain.accounting import Entry
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.turn import Turn

MAX_RESERVATIONS: Final = 10_000


class Reservation:
    __slots__ = (
        "_delivered",
        "_rate",
        "_since_ms",
        "active",
        "booked",
        "closing",
        "id",
        "mark",
        "missing",
        "nodes",
        "shortfall",
        "spec",
        "used",
        "window",
    )
    kind = "reservation"

    def __init__(self, spec: RequestReservation) -> None:
        self.id = spec.reservation
        self.spec = spec
        self.window = calendar.window_of(spec)
        """The one that is on, or comes next."""
        self.nodes: dict[str, int] = {}
        """Slots held, or waited for, by node."""
        self.missing: dict[str, int] = {}
        """Slots by node that others still use."""
        self.used: dict[str, int] = {}
        """Slots by node that jobs in the reservation use."""
        self.booked: Entry | None = None
        self.active = False
        self.closing = ""
        """Why it closes; empty while it does not."""
        self.shortfall = 0
        """Slots of the promise that are missed now."""
        self._rate = 0
        """Slots held since `_since_ms`."""
        self._since_ms = 0
        self._delivered = 0
        """Slots x milliseconds that were held in the window until then."""
        self.mark = 0

    @property
    def recurs(self) -> bool:
        """Another window comes after this one."""
        return self.closing != "cancelled" and self.window.after(self.window.end_ms) is not None

    @property
    def is_over(self) -> bool:
        """It takes no work any more."""
        return bool(self.closing) and not self.recurs

    def delivered(self, now_ms: int) -> int:
        """Slots x milliseconds that were held in the window."""
        start_ms, end_ms = self.window[:2]
        held_ms = min(now_ms, end_ms) - min(max(self._since_ms, start_ms), end_ms)
        return self._delivered + self._rate * max(0, held_ms)

    def due(self, now_ms: int) -> int:
        """Slots x milliseconds that are promised until now."""
        over_ms = max(0, min(now_ms, self.window.end_ms) - self.window.start_ms)
        return self.spec.count * self.spec.slots * over_ms

    def settle(self, now_ms: int) -> None:
        """At the end of a round that changed what is held."""
        rate = sum(self.nodes.values()) - sum(self.missing.values())
        if rate != self._rate:
            self._delivered = self.delivered(now_ms)
            self._since_ms, self._rate = now_ms, rate

    def move(self, start_ms: int) -> None:
        """All begins anew with another window."""
        self.window = calendar.moved(self.window, start_ms)
        self.active, self.closing, self.shortfall = False, "", 0
        self._rate = self._since_ms = self._delivered = 0

    def restore(self, start_ms: int, since_ms: int, delivered: int) -> None:
        self.window = calendar.moved(self.window, start_ms)
        self._rate = sum(self.nodes.values()) - sum(self.missing.values())
        self._since_ms, self._delivered = since_ms, delivered

    @property
    def status(self) -> str:
        if self.closing:
            return "closing"
        if self.active:
            return "active"
        return "claimed" if self.nodes else "confirmed"

    @property
    def want(self) -> int:
        """Replicas that are not bound to a node yet."""
        return self.spec.count - sum(self.nodes.values()) // self.spec.slots

    @property
    def bind_ms(self) -> int:
        return self.window.start_ms - 1000 * self.spec.lead_s

    def next_ms(self, now_ms: int) -> int | None:
        if self.closing:
            return None
        moments = (self.bind_ms, self.window.start_ms, self.window.end_ms)
        return min((m for m in moments if m > now_ms), default=None)

    def free_on(self, node: str) -> int:
        return self.nodes[node] - self.missing.get(node, 0) - self.used.get(node, 0)

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.spec.model_dump_json(exclude_defaults=True),
            sorted(self.nodes.items()),
            sorted(self.missing.items()),
            self.active,
            self.closing,
            self.shortfall,
            self.window.start_ms,
            self._since_ms,
            self._delivered,
        )


# --- decide ---------------------------------------------------------------------------------------


def request_reservation(turn: Turn, command: RequestReservation, at: int) -> None:
    cell = turn.cell
    if command.reservation in cell.reservations:
        raise Refused("reservation_exists", "reservation", "a live reservation has this name")
    if len(cell.reservations) >= MAX_RESERVATIONS:
        raise Refused("too_many_reservations", "reservation", f"at most {MAX_RESERVATIONS}")
    if command.account not in cell.accounts:
        raise Refused("unknown_account", "account", f"no account {command.account!r} is known")
    for queue in command.queues:
        if queue not in cell.queues:
            raise Refused("unknown_queue", "queues", f"no queue {queue!r} is known")
    if command.end_ms <= turn.header.now_ms:
        raise Refused("window_is_over", "end_ms", "the window lies in the past")
    admission.check_reservation(cell, command)
    _check_capacity(cell, command)
    turn.emit(ReservationConfirmed(at))


def _check_capacity(cell: Cell, command: RequestReservation) -> None:
    """Refuse what the nodes could not hold even if nothing ran on them, and say what they could."""
    found = calendar.fault(cell, command)
    if found is None:
        return
    offers = calendar.instead(cell, command, cell.now_ms)
    rule = f"{found.rule}; instead: {', '.join(offers) or 'nothing'}"
    if found.taken:
        raise Refused("window_is_taken", "count", rule)
    raise Refused("never_fits", "count", rule)


def cancel_reservation(turn: Turn, command: CancelReservation, at: int) -> None:
    reservation = turn.cell.reservations.get(command.reservation)
    if reservation is None or reservation.closing:
        raise Refused("unknown_reservation", "reservation", "no live reservation has this name")
    close(turn, reservation, "cancelled")


def close(turn: Turn, reservation: Reservation, reason: str) -> None:
    now_ms = turn.header.now_ms
    due, delivered = reservation.due(now_ms), reservation.delivered(now_ms)
    turn.emit(ReservationClosing(reservation.id, reason, due // 1000, delivered // 1000))
    for run in runs_in(turn.cell, reservation):
        if not run.stop_by_ms:
            turn.stop(run, "reservation_ended")
    _end_if_empty(turn, reservation)


def _end_if_empty(turn: Turn, reservation: Reservation) -> None:
    if not reservation.used:
        then = reservation.window.after(turn.header.now_ms) if reservation.recurs else None
        turn.emit(ReservationEnded(reservation.id, then[0] if then is not None else 0))
        if then is not None and reservation.bind_ms <= turn.header.now_ms:
            turn.cell.wake(turn.header.now_ms)


def keep(turn: Turn) -> None:
    """Begin and end the windows that are due, and bind what is not bound."""
    cell, now = turn.cell, turn.header.now_ms
    for reservation in sorted(cell.reservations.values(), key=lambda r: (r.window.start_ms, r.id)):
        if reservation.closing:
            _end_if_empty(turn, reservation)
        elif now >= reservation.window.end_ms:
            close(turn, reservation, "ended")
        elif now >= reservation.bind_ms:
            if reservation.want:
                _bind(turn, reservation)
            if now < reservation.window.start_ms:
                continue
            if not reservation.active and not reservation.want and not reservation.missing:
                turn.emit(ReservationActive(reservation.id))


def _bind(turn: Turn, reservation: Reservation) -> None:
    cell, spec = turn.cell, reservation.spec
    classes = calendar.classes_for(cell, spec)
    level = LEVELS.index(spec.required_level)
    within = placement.domain_of_nodes(cell, reservation.nodes, level)
    count = reservation.want
    chosen = placement.replicas(cell, classes, count, spec.slots, level, within)
    if chosen is not None:
        nodes = [(node.id, n * spec.slots) for node, n in chosen]
        turn.emit(ReservationClaimed(reservation.id, nodes))
        return
    wanted = eviction.Wanted(classes, ((count, spec.slots, 64),), level, within)
    plan = eviction.plan(turn, wanted, claims.unreserved(turn))
    if plan is None:
        cell.unfinished = True  # what this round starts or frees may be what the next one can take
        shortfall = count * spec.slots
        late = turn.header.now_ms >= reservation.window.start_ms
        if late and shortfall != reservation.shortfall:
            turn.emit(ReservationMissed(reservation.id, shortfall))
        return
    turn.emit(
        PreemptionDecided(
            reservation.id, "reservation", plan.victims, plan.candidates, plan.runner_up_cost
        )
    )
    for run in plan.runs:
        turn.stop(run, "preempted")
    held: list[Held] = [(node.id, n * spec.slots) for node, n, _ in plan.placed]
    turn.emit(ReservationClaimed(reservation.id, held, plan.waits_for(spec.slots)))


# --- evolve ---------------------------------------------------------------------------------------


def apply_confirmed(cell: Cell, fact: ReservationConfirmed) -> None:
    spec = cell.command(fact.command, RequestReservation)
    reservation = Reservation(spec)
    cell.reservations[reservation.id] = reservation
    cell.touch(reservation)


def apply_claimed(cell: Cell, fact: ReservationClaimed) -> None:
    reservation = cell.reservations[fact.reservation]
    waits = dict(fact.waits_for)
    for id_, slots in fact.nodes:
        node = cell.nodes[id_]
        reservation.nodes[id_] = reservation.nodes.get(id_, 0) + slots
        missing = waits.get(id_, 0)
        if missing:
            reservation.missing[id_] = missing
            node.waiting.append(reservation)
        node.held[reservation] = node.held.get(reservation, 0) + slots - missing
        node.used += slots - missing
        cell.used_node(node)
    reservation.shortfall = 0
    cell.touch(reservation)


def apply_active(cell: Cell, fact: ReservationActive) -> None:
    reservation = cell.reservations[fact.reservation]
    reservation.active = True
    cell.touch(reservation)


def apply_missed(cell: Cell, fact: ReservationMissed) -> None:
    reservation = cell.reservations[fact.reservation]
    reservation.shortfall = fact.shortfall_slots
    cell.touch(reservation)


def apply_unbound(cell: Cell, fact: ReservationUnbound) -> None:
    reservation = cell.reservations[fact.reservation]
    release(cell, reservation, cell.nodes[fact.node])
    reservation.active = False
    cell.touch(reservation)


def release(cell: Cell, reservation: Reservation, node: Node) -> None:
    """Give the node's slots back."""
    freed = node.held.pop(reservation)
    del reservation.nodes[node.id]
    if reservation.missing.pop(node.id, 0):
        node.waiting.remove(reservation)
    node.used -= freed
    give_back(cell, node, freed)


def apply_closing(cell: Cell, fact: ReservationClosing) -> None:
    reservation = cell.reservations[fact.reservation]
    reservation.closing = fact.reason
    cell.touch(reservation)


def apply_ended(cell: Cell, fact: ReservationEnded) -> None:
    reservation = cell.reservations[fact.reservation]
    for id_ in list(reservation.nodes):
        release(cell, reservation, cell.nodes[id_])
    if fact.next_start_ms:
        reservation.move(fact.next_start_ms)
        cell.touch(reservation)
        return
    del cell.reservations[fact.reservation]
    cell.left(reservation)
