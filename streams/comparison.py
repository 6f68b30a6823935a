"""A recorded history beside what it would have been: the report of a what-if."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from math import gcd
from typing import Any, Final

from msgspec import Struct

from domain.cell import Cell
from domain.commands import SetPolicy, SubmitJob
from domain.facts import AttemptStarted, AttemptStopping, JobClaimed, PolicySet
from domain.ledger import Head, Header, Round
from domain.specs import PolicyParameters
from streams import outcomes
from streams.changes import Change
from streams.learn import Learned, Lessons
from streams.measure import Measure
from streams.outcomes import Outcomes
from streams.reader import Believed
from streams.what_if import CannotReplay, Rerun, decide_again, due

COARSEST_MS: Final = 1000
"""Of the grid that is taken from the recorded rounds."""
GATES: Final = ("promises", "completion", "losses")
"""promises: no more are broken; completion: no fewer jobs finish; losses: no more slot-seconds are
lost. Each beside the recorded history."""

InWindow = Callable[[Header], bool]
Read = Callable[[Head], AsyncIterator[Believed]]
"""The believed records after a head."""


class Window(Struct, frozen=True):
    """Rounds `first` to `last`, as recorded."""

    first: int
    last: int
    last_ms: int
    last_hash: str
    whole: bool
    """It ends where the ledger does."""
    submitted_ms: int
    """The last submission's time."""
    origin_ms: int
    round_ms: int
    """The grid on which all recorded rounds stand."""
    policy: PolicyParameters
    """In force at its end."""


class Side:
    """One history of the two, as it is measured."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.measure = Measure()
        self.measure.begin(cell)
        self.outcomes = Outcomes(cell)
        self.decisions: dict[tuple[str, str, int], Any] = {}

    def observe(self, round: Round, cell: Cell) -> None:
        self.measure.observe(round, cell)
        self.outcomes.observe(round, cell)
        now_ms = round.header.now_ms
        for fact in round.facts:
            if isinstance(fact, JobClaimed | AttemptStarted):
                found = (now_ms, fact.nodes)
                self.decisions[type(fact).__name__, fact.job, fact.attempt] = found
            elif isinstance(fact, AttemptStopping):
                found_stop = (now_ms, fact.reason)
                self.decisions[type(fact).__name__, fact.job, fact.attempt] = found_stop
        for refusal in round.refusals:
            command = round.commands[refusal.command]
            if command.type == SubmitJob.__name__:
                self.decisions["Refusal", f"{command.source}/{command.id}", 0] = refusal.code


async def study(
    read: Read,
    since: InWindow,
    until: InWindow,
    round_ms: int | None,
) -> tuple[Learned, Window]:
    """Read all of a ledger: what it shows of the jobs, and the window's bounds.

    `since` and `until` tell for a round's header whether it is in the window. Raises ValueError if
    no round is.
    """
    lessons = Lessons()
    first = last = last_ms = submitted_ms = head = origin_ms = step_ms = 0
    last_hash, policy = "", PolicyParameters()
    async for believed in read(Head()):
        round = believed.round
        head, now_ms = round.header.round, round.header.now_ms
        origin_ms = origin_ms or now_ms
        step_ms = gcd(step_ms, now_ms - origin_ms)
        lessons.read(round)
        if until(round.header):
            policy = _policy_after(round, policy)
        if since(round.header) and until(round.header):
            first = first or head
            last, last_ms, last_hash = head, now_ms, believed.head.hash
            if any(c.type == SubmitJob.__name__ for c in round.commands):
                submitted_ms = now_ms
    if not first:
        raise ValueError("no round of the ledger is in it")
    grid_ms = round_ms or gcd(step_ms, COARSEST_MS)
    bounds = (first, last, last_ms, last_hash, last == head)
    window = Window(*bounds, submitted_ms or last_ms, origin_ms, grid_ms, policy)
    return lessons.end(), window


def _policy_after(round: Round, before: PolicyParameters) -> PolicyParameters:
    for fact in round.facts:
        if isinstance(fact, PolicySet):
            body = bytes(round.commands[fact.command].data)
            before = SetPolicy.model_validate_json(body).parameters
    return before


class Comparison:
    """Feeds the recorded rounds of a window to both sides."""

    def __init__(self, before: Cell, learned: Learned, change: Change, window: Window) -> None:
        """`before` is the state before the window's first round; it is used up."""
        twin = Cell(before.name)
        if before.head.round:  # both from one snapshot: equal to what is due at which moment
            state = before.snapshot()
            before, twin = Cell.restore(state), Cell.restore(state)
        self._window = window
        self._learned = learned
        self._promise = outcomes.queue_delay(before.policy.queue_delay_s)
        self.recorded = Side(before)
        self._last: Round | None = None
        self.supposed = Side(twin)
        self.rerun = Rerun(
            twin,
            learned,
            change,
            self.supposed.observe,
            origin_ms=window.origin_ms,
            round_ms=window.round_ms,
        )

    def follow(self, believed: Believed) -> None:
        """The next recorded round. Raises CannotReplay."""
        round, cell = believed.round, self.recorded.cell
        self.rerun.follow(round, due(cell, self._last))
        self._last = decide_again(cell, round, round.commands)
        if cell.head != believed.head:
            raise CannotReplay(f"round {round.header.round}, decided again, is another one")
        self.recorded.observe(round, cell)
        if any(c.type == SetPolicy.__name__ for c in round.commands):
            delays_s = self.recorded.cell.policy.queue_delay_s
            self._promise = outcomes.queue_delay(delays_s)

    def finish(self) -> dict[str, Any]:
        """All recorded rounds of the window were fed: the report.

        A whole history whose jobs all ended is run until its other self has no jobs left.
        """
        window = self._window
        ended = window.whole and not self.recorded.cell.jobs
        self.rerun.finish(None if ended else window.last_ms)
        return self._report()

    def _report(self) -> dict[str, Any]:
        recorded, supposed = self.recorded, self.supposed
        window, rerun = self._window, self.rerun
        sides = {"recorded": recorded, "what_if": supposed}
        until_ms = window.submitted_ms
        kpis = {name: side.measure.report(until_ms) for name, side in sides.items()}
        report: dict[str, Any] = {
            "cell": recorded.cell.name,
            "rounds": [window.first, window.last],
            "last_hash": window.last_hash,
            "rounds_same_bytes": rerun.same_bytes,
            "differing_decisions": _differing(recorded.decisions, supposed.decisions),
            "differs_at_round": rerun.differs_at,
            "jobs_assumed": len(self._learned.assumed & supposed.outcomes.jobs.keys()),
            "kpis": kpis,
            "tiers": _beside(sides, outcomes.by_tier),
            "promises": {
                "queue_delay": _beside(sides, lambda o: outcomes.judged(o, self._promise))
            },
            "accounts": _beside(sides, outcomes.by_account),
            "cost": {name: side.outcomes.cost(side.cell) for name, side in sides.items()},
        }
        report["winners"], report["losers"] = _won(report["accounts"])
        report["gates"] = gates(report)
        return report

    def _kept(self, side: Outcomes) -> dict[str, Any]:
        return outcomes.judged(side, self._promise)


def _beside(sides: dict[str, Side], view: Callable[[Outcomes], dict[str, Any]]) -> dict[str, Any]:
    """By key of the view, then by side."""
    views = {name: view(side.outcomes) for name, side in sides.items()}
    keys = sorted(set().union(*views.values()))
    return {key: {name: found.get(key) for name, found in views.items()} for key in keys}


def _differing(one: dict[Any, Any], two: dict[Any, Any]) -> int:
    """Starts, claims, stops and refused submissions that only one has, or at other times."""
    return sum(one.get(key) != two.get(key) for key in one.keys() | two.keys())


def _won(accounts: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Accounts whose jobs wait less in the mean, and those that wait more; the most first."""
    more: dict[str, float] = {}
    for account, sides in accounts.items():
        if sides["recorded"] is not None and sides["what_if"] is not None:
            before_s = sides["recorded"]["queue_mean_s"]
            more[account] = sides["what_if"]["queue_mean_s"] - before_s
    order = sorted(more, key=lambda account: (more[account], account))
    winners = [account for account in order if more[account] < 0]
    return winners, [account for account in reversed(order) if more[account] > 0]


def gates(report: dict[str, Any]) -> dict[str, bool]:
    """Whether each gate is passed."""
    kpis = report["kpis"]
    broken = dict.fromkeys(("recorded", "what_if"), 0)
    for promise in report["promises"].values():
        for sides in promise.values():
            for name in broken:
                broken[name] += (sides[name] or {}).get("broken", 0)
    finished = {name: kpis[name]["jobs_finished"] for name in broken}
    lost = {name: kpis[name]["lost_gpu_s"] for name in broken}
    passed = (
        broken["what_if"] <= broken["recorded"],
        finished["what_if"] >= finished["recorded"],
        lost["what_if"] <= lost["recorded"],
    )
    return dict(zip(GATES, passed, strict=True))
