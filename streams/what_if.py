"""What if: recorded demand through the real decider once more, with something changed.

Up to the first round that decides otherwise, the recorded rounds are decided again as they stand,
with what the agents reported in them. From that round on the demand comes at its recorded moments,
and simulated agents answer, each job needing the work that the ledger shows it to have needed. So
an unchanged history comes out the same to the byte, and a changed one is what the simulator gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import Raw
from msgspec.structs import replace

from domain.cell import Cell
from domain.commands import (
    Command,
    RegisterNode,
    ReportAttempt,
    ReportCheckpoint,
)
from domain.decide import decide
from domain.ledger import ENGINE, Accepted, Head, Round, canonical, digest
from domain.timers import next_due_ms
from streams import dispatch
from streams.agent import Work, estimated
from streams.changes import Change
from streams.clockwork import Clockwork
from streams.envelope import body_of
from streams.fleet import Fleet
from streams.learn import Learned

SOURCE: Final = "what-if"
AGENTS: Final = "what-if-agents"
PARTITION: Final = 2
AGENTS_PARTITION: Final = 3
"""Inputs of their own, which no recorded command stands on."""
PATIENCE_MS: Final = 60_000
"""As the simulator's agents have."""

REPORTS: Final = (ReportAttempt.__name__, ReportCheckpoint.__name__)

Observer = Callable[[Round, Cell], object]


class CannotReplay(Exception):
    """The rounds are not of this engine: it does not promise to decide them again."""


class Unsigned:
    """Signs nothing: what is only supposed is no record of any ledger."""

    key_id = ""

    def sign(self, message: bytes) -> bytes:
        return b""


class StandIns(Fleet):
    """Agents that answer for those in the ledger; they need not register again."""

    def advance(self, now_ms: int) -> list[Command]:
        return [c for c in super().advance(now_ms) if not isinstance(c, RegisterNode)]


class Rerun:
    """Follows recorded rounds with a change; `cell` is the state before the first of them."""

    def __init__(
        self,
        cell: Cell,
        learned: Learned,
        change: Change,
        observe: Observer,
        *,
        origin_ms: int,
        round_ms: int,
    ) -> None:
        """`observe` gets each round of the supposed history, and the state after it.

        After the first round that differs, rounds stand on the grid of `round_ms` from `origin_ms`.
        """
        self.cell = cell
        self.differs_at: int | None = None
        """The first round with another decision."""
        self.same_bytes = 0
        """Rounds that came out the same to the byte."""
        self._learned = learned
        self._change = change
        self._observe = observe
        self._grid = (origin_ms, round_ms)
        self._injected = False
        self._dropped: set[tuple[str, str]] = set()
        self._unheard: list[ReportAttempt | ReportCheckpoint] = []
        """What the stand-ins said and the cell has not heard, while real agents still report."""
        self._advanced_ms = -1
        """The stand-ins' time: within one moment they speak once, as the simulator's agents."""
        self._clockwork: Clockwork | None = None
        self._moment: tuple[int, list[Accepted]] = (0, [])
        """Demand of the recorded moment that is being read."""
        self._parted_ms = 0
        self._last: Round | None = None
        self._fleet = self._stand_ins()

    def _stand_ins(self) -> StandIns:
        cell, learned = self.cell, self._learned
        now_ms = cell.now_ms

        def work_of(start: dispatch.Start) -> Work:
            return learned.work.get(start.job) or estimated(start)

        nodes: dict[str, RegisterNode | None] = {**learned.nodes}
        nodes.update((node.id, node.spec) for node in cell.nodes.values())
        nodes.update(self._change.nodes)
        specs = [s.model_copy(update={"lease_s": 0}) for s in nodes.values() if s is not None]
        there = {spec.node for spec in specs}
        later = [o for o in learned.outages if o.until_ms > now_ms and o.node in there]
        fleet = StandIns(work_of, patience_ms=PATIENCE_MS, outages=later)
        fleet.add_nodes(specs, now_ms, known=True)
        for told in dispatch.outstanding(cell):
            if isinstance(told, dispatch.Start):
                kept_ms = learned.kept_ms.get((told.job, told.attempt))
                if kept_ms is not None:
                    fleet.agent.know_saved(told.job, kept_ms)
            fleet.handle([told], now_ms)
        self._discard(fleet, now_ms)
        return fleet

    # --- history as it was ------------------------------------------------------------------------

    def follow(self, round: Round, due_ms: int | None) -> None:
        """The next recorded round, and what was due in the recorded cell before it (`due`)."""
        changed = self._changed(round)
        if self._clockwork is None and self._parts_before(round, due_ms):
            self._part(round.header.round)
        if self._clockwork is not None:
            self._later(self._clockwork, round.header.now_ms, changed)
            return
        again = self._last = decide_again(self.cell, round, changed)
        self.same_bytes += canonical(again) == canonical(round)
        self._discard(self._fleet, round.header.now_ms)
        self._fleet.handle(dispatch.instructions(self.cell, again), round.header.now_ms)
        self._observe(again, self.cell)
        if not self._same(again, round):
            self._part(round.header.round)

    def _parts_before(self, round: Round, due_ms: int | None) -> bool:
        """True iff a round is due before this one that was not made, or this one is not due."""
        own_ms = due(self.cell, self._last)
        if own_ms == due_ms:
            return False
        now_ms = round.header.now_ms
        if own_ms is not None and self._on_grid(own_ms) < now_ms:
            return True
        told_ms = self._fleet.next_ms()
        asked = [self._on_grid(m) for m in (own_ms, told_ms) if m is not None]
        demanded = any(c.type not in REPORTS for c in round.commands)
        return not demanded and min(asked, default=now_ms + 1) > now_ms

    def _on_grid(self, at_ms: int) -> int:
        origin_ms, round_ms = self._grid
        return at_ms + (origin_ms - at_ms) % round_ms

    def _changed(self, round: Round) -> list[Accepted]:
        """The round's commands as the change has them; those that it adds come first."""
        injected: list[Accepted] = []
        if not self._injected:
            self._injected = True
            now_ms = round.header.now_ms
            for offset, own in enumerate(self._change.added(self.cell, self._learned)):
                injected.append(_accepted(own, offset, now_ms))
        kept: list[Accepted] = []
        for command in round.commands:
            instead = self._change.of(command)
            if instead is None:
                self._dropped.add((command.source, command.id))
            else:
                kept.append(instead)
        return [*injected, *kept] if injected else kept

    def _same(self, again: Round, round: Round) -> bool:
        if again.commands == round.commands:
            return again.facts == round.facts and again.refusals == round.refusals
        return _told(again, self._dropped) == _told(round, self._dropped)

    def _discard(self, fleet: StandIns, now_ms: int) -> None:
        """What the stand-ins say now, real agents said; remember what the cell has yet to hear."""
        if now_ms > self._advanced_ms:
            self._advanced_ms = now_ms
            said = fleet.advance(now_ms)
            self._unheard += [c for c in said if isinstance(c, ReportAttempt | ReportCheckpoint)]
        self._unheard = [report for report in self._unheard if _is_news(self.cell, report)]

    # --- history as it would be -------------------------------------------------------------------

    def _part(self, number: int) -> None:
        """From this round on the histories differ: the stand-ins answer."""
        self.differs_at = number
        origin_ms, round_ms = self._grid
        clockwork = self._clockwork = Clockwork(
            self.cell,
            self._fleet,
            Unsigned(),
            lambda made, record: self._observe(made, self.cell),
            voice=(AGENTS_PARTITION, AGENTS),
            origin_ms=origin_ms,
            round_ms=round_ms,
        )
        clockwork.resume(self._last)
        for report in self._unheard:
            if _is_news(self.cell, report):
                clockwork.say_command(report)
        self._unheard.clear()
        self._parted_ms = clockwork.now_ms
        self._moment = (clockwork.now_ms, [])

    def _later(self, clockwork: Clockwork, now_ms: int, commands: list[Accepted]) -> None:
        """Demand of a recorded round. Several rounds of one moment are one step."""
        if now_ms > self._moment[0]:
            self._pass_moment(clockwork)
            self._moment = (now_ms, [])
        self._moment[1].extend(c for c in commands if c.type not in REPORTS)

    def _pass_moment(self, clockwork: Clockwork) -> None:
        """All demand of the recorded moment is there."""
        at_ms, commands = self._moment
        if at_ms <= self._parted_ms:  # the rest of the moment at which the histories part
            clockwork.take(commands)
            clockwork.settle()
        elif commands:
            self._run_until(clockwork, clockwork.on_grid(at_ms) - 1)
            clockwork.now_ms = max(clockwork.now_ms, clockwork.on_grid(at_ms))
            clockwork.take(commands)
            clockwork.step()

    def _run_until(self, clockwork: Clockwork, until_ms: int | None) -> None:
        while self.cell.jobs or until_ms is not None:
            next_ms = clockwork.next_ms()
            if next_ms is None or (until_ms is not None and next_ms > until_ms):
                return
            clockwork.now_ms = next_ms
            clockwork.step()

    def finish(self, until_ms: int | None) -> None:
        """All recorded rounds were followed: go on up to a moment, or until no job is left."""
        clockwork = self._clockwork
        if clockwork is None:
            return
        self._pass_moment(clockwork)
        for node in list(self.cell.nodes.values()):
            since_ms = self._learned.signs_ms.get(node.id)
            lease_s = node.spec.lease_s
            if since_ms is not None and lease_s and not node.lost:
                self._fleet.add_nodes([node.spec], since_ms + 1000 * lease_s // 3, known=True)
        self._run_until(clockwork, until_ms)


def due(cell: Cell, last: Round | None) -> int | None:
    """When the cell needs a round without a command; `last` is the round that was decided last."""
    full = last is not None and bool(last.facts) and cell.unfinished
    return cell.now_ms if full else next_due_ms(cell)


def decide_again(cell: Cell, round: Round, commands: Sequence[Accepted]) -> Round:
    """The round as the cell decides it, and believes it. Raises CannotReplay."""
    number, engine = round.header.round, round.header.engine
    if engine != ENGINE:
        raise CannotReplay(f"round {number} is of engine {engine}, not {ENGINE}")
    again = decide(cell, round.header, commands)
    cell.believe(Head(number, digest(canonical(again)).hex()), again.inputs)
    return again


def _accepted(command: Command, offset: int, now_ms: int) -> Accepted:
    return Accepted(
        PARTITION,
        offset,
        str(offset),
        SOURCE,
        type(command).__name__,
        SOURCE,
        now_ms,
        Raw(canonical(body_of(command))),
    )


def _is_news(cell: Cell, report: ReportAttempt | ReportCheckpoint) -> bool:
    """True iff the report would change something."""
    job = cell.jobs.get(report.job)
    run = job.run if job is not None else None
    if run is None or run.attempt != report.attempt or not run.started_ms:
        return False
    if isinstance(report, ReportCheckpoint):
        return run.checkpoint_ms < report.at_ms
    return report.state != "running" or not (run.running_ms or run.stop_by_ms)


def _told(round: Round, dropped: set[tuple[str, str]]) -> list[Any]:
    """Facts and refusals, with commands by their names; of what the change put in or out, none."""
    names = [(c.source, c.id) for c in round.commands]
    told: list[Any] = []
    for fact in round.facts:
        at = getattr(fact, "command", None)
        if at is None:
            told.append(fact)
        elif names[at] not in dropped and names[at][0] != SOURCE:
            told.append((replace(fact, command=0), names[at]))
    for refusal in round.refusals:
        name = names[refusal.command]
        if name not in dropped and name[0] != SOURCE:
            told.append((replace(refusal, command=0), name))
    return told
