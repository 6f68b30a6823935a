"""Tiers as promises: what is due to an account's work by tier, and what of it was delivered.

For each account, resource (accelerator type, or group of types) and tier, in thousandths of slots
or of the group's units:

    demand    = min(held + waiting, what stronger tiers leave of the account's nominal quota)
    due       = the tier's fraction x demand, over time
    delivered = min(held, demand), over time
    slack     = delivered - due

`held` are started attempts outside of reservations; `waiting` are jobs that could start, counted on
the first type that they accept; neither counts beyond nominal quota. A pledge is in deficit when
its slack is below what it would be if all of its demand had waited for the tier's `queue_delay_s`:
so a wait that is promised anyway makes no deficit. Those in deficit come first within their tier,
and are spared by tiers that are not in deficit themselves.

Windows are multiples of the policy's `sla_window_s`. Each one in which something was due closes
with a fact. The cost is that of the accounts that a round changed, however many jobs wait.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from domain.facts import PromiseVoided, SlaWindowClosed
from domain.specs import TIERS

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.placement import Blocked
    from domain.quota import Account
    from domain.runs import Run
    from domain.shapes import Shape
    from domain.specs import PolicyParameters
    from domain.turn import Turn

PPM: Final = 1_000_000
SLOT_S: Final = PPM * 1_000_000
"""Millionths x thousandths of slots x milliseconds in a slot-second."""
DAY_MS: Final = 86_400_000
CLOSED_A_ROUND: Final = 500
"""Pledges whose windows one round closes; the next one goes on."""
NEVER: Final = ("over_quota", "never_fits", "no_matching_nodes")
"""Reasons of waiting for which no promise can be kept."""


class Pledge:
    """What is promised to one account's work on one accelerator type or group, by tier."""

    __slots__ = (
        "_changed",
        "_deficits",
        "_known_ms",
        "accelerator",
        "account",
        "delivered",
        "delivering",
        "due",
        "duing",
        "from_ms",
        "grace",
        "held",
        "id",
        "late",
        "mark",
        "since_ms",
        "starts",
        "waiting",
    )
    kind = "pledge"

    def __init__(
        self, account: Account, accelerator: str, now_ms: int, changed: dict[Pledge, None]
    ) -> None:
        self.id = (account.id, accelerator)
        self.account = account
        self.accelerator = accelerator
        self._changed = changed
        none = [0] * len(TIERS)
        self.held, self.waiting = list(none), list(none)
        """Thousandths of slots now."""
        self.duing, self.delivering = list(none), list(none)
        """Millionths of thousandths of slots: the rates of what is due and delivered."""
        self.due, self.delivered = list(none), list(none)
        """Rates x milliseconds, from `from_ms` to `since_ms`."""
        self.starts, self.late = list(none), list(none)
        """First starts in the window, within nominal quota, and those after `queue_delay_s`."""
        self.grace = list(none)
        """So much slack may lack before it is a deficit."""
        self.from_ms = self.since_ms = now_ms
        self._known_ms = -1
        self._deficits = (False,) * len(TIERS)
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        # As text: these outgrow the 64 bits of the packed form.
        due, delivered = [str(n) for n in self.due], [str(n) for n in self.delivered]
        return (*self.id, self.from_ms, self.since_ms, due, delivered, self.starts, self.late)

    def wait(self, tier: int, amount: int) -> None:
        self.waiting[tier] += amount
        self._changed[self] = None

    def hold(self, tier: int, amount: int) -> None:
        self.held[tier] += amount
        self._changed[self] = None

    def renew(self, policy: PolicyParameters, now_ms: int) -> bool:
        """Take what is held and waits now as the rates from now on; True if they are others."""
        left = max(0, self.account.subtree.get(self.accelerator, 0))
        if self.accelerator in self.account.exhausted:
            left = 0
        duing, delivering = [], []
        for tier, fraction in enumerate(policy.gpu_time_fraction_ppm):
            demand = min(left, self.held[tier] + self.waiting[tier])
            left -= demand
            duing.append(fraction * demand)
            delivering.append(PPM * min(self.held[tier], demand) if fraction else 0)
        grace = [1000 * s * d for s, d in zip(policy.queue_delay_s, duing, strict=True)]
        if (duing, delivering, grace) == (self.duing, self.delivering, self.grace):
            return False
        if not self.active:
            self.from_ms = now_ms
        self.settle(now_ms)
        self.duing, self.delivering, self.grace = duing, delivering, grace
        self.forget()
        return True

    def forget(self) -> None:
        """What was found of deficits holds no more."""
        self._known_ms = -1

    def settle(self, now_ms: int) -> None:
        elapsed = now_ms - self.since_ms
        if elapsed:
            for tier in range(len(TIERS)):
                self.due[tier] += self.duing[tier] * elapsed
                self.delivered[tier] += self.delivering[tier] * elapsed
            self.since_ms = now_ms

    def slack(self, tier: int, now_ms: int) -> int:
        elapsed = now_ms - self.since_ms
        so_far = self.delivered[tier] - self.due[tier]
        return so_far + (self.delivering[tier] - self.duing[tier]) * elapsed

    def in_deficit(self, tier: int, now_ms: int) -> bool:
        if self._known_ms != now_ms:
            self._known_ms = now_ms
            self._deficits = tuple(
                self.duing[t] > 0 and self.slack(t, now_ms) < -self.grace[t]
                for t in range(len(TIERS))
            )
        return self._deficits[tier]

    def turns_ms(self, tier: int, now_ms: int) -> int | None:
        """When the pledge falls into deficit, or is out of it, if nothing else changes."""
        above = self.slack(tier, now_ms) + self.grace[tier]
        rate = self.delivering[tier] - self.duing[tier]
        if self.in_deficit(tier, now_ms):
            return now_ms - (above // rate) if rate > 0 else None
        return now_ms + above // -rate + 1 if rate < 0 else None

    @property
    def active(self) -> bool:
        """Something was or is due in the window."""
        return any(self.duing) or any(self.due)


def pledge(cell: Cell, account: Account, accelerator: str) -> Pledge:
    """The pledge on the resource of a type: the type, or the group that it is in."""
    resource = account.priced(accelerator)[0]
    found = cell.pledges.get((account.id, resource))
    if found is None:
        found = Pledge(account, resource, cell.now_ms, cell.unsettled)
        cell.pledges[found.id] = found
        cell.touch(found)
    return found


def hold(cell: Cell, run: Run, by: int) -> None:
    """A gang holds its slots from now on, or (with -1) no more; growth is promised to nobody."""
    shape = run.job.shape
    account = shape.queue.account
    amount = account.charged(run.accelerator, shape.size)
    pledge(cell, account, run.accelerator).hold(shape.tier, by * amount)


def enlist(cell: Cell, shape: Shape) -> None:
    """What waits of the shape counts for the pledge on the first type that it accepts."""
    account, first = shape.queue.account, shape.needs[0].accelerator
    shape.pledge = pledge(cell, account, first)
    shape.pledged = account.charged(first, shape.size)


def recount(cell: Cell) -> None:
    """The exchange rates are others: count what is held and waits anew."""
    for one in cell.pledges.values():
        one.held, one.waiting = [0] * len(TIERS), [0] * len(TIERS)
    for shape in cell.shapes.values():
        if shape.pledge is not None:
            enlist(cell, shape)
            if not shape.void:
                shape.pledge.wait(shape.tier, shape.waiting * shape.pledged)
    for job in cell.jobs.values():
        if job.run is not None and job.run.started_ms and job.run.reservation is None:
            hold(cell, job.run, 1)
    reconsider(cell)


def settle(cell: Cell) -> None:
    """At the end of a round: rates follow what it changed."""
    for one in cell.unsettled:
        if one.renew(cell.policy, cell.now_ms):
            cell.touch(one)
            for tier, waiting in enumerate(one.waiting):
                if waiting and cell.policy.preemption:
                    wake_when_turned(cell, one, tier)
    cell.unsettled.clear()


def reconsider(cell: Cell) -> None:
    """Quota or policy are others: all rates may be."""
    cell.unsettled.update(dict.fromkeys(cell.pledges.values()))


def started(cell: Cell, run: Run) -> None:
    """Count a first start, and whether it was late."""
    shape = run.job.shape
    if run.attempt != 1 or run.reservation is not None or not _promised(cell, shape):
        return
    one = pledge(cell, shape.queue.account, run.accelerator)
    # Not by the account's usage: while a round gathers, that has what is kept for a gang.
    if sum(one.held) <= one.account.subtree.get(one.accelerator, 0):
        one.starts[shape.tier] += 1
        waited_ms = cell.now_ms - run.job.seniority_ms
        one.late[shape.tier] += waited_ms > 1000 * cell.policy.queue_delay_s[shape.tier]
        cell.touch(one)


def _promised(cell: Cell, shape: Shape) -> bool:
    return cell.policy.gpu_time_fraction_ppm[shape.tier] > 0


# --- decide ---------------------------------------------------------------------------------------


def in_deficit(cell: Cell, shape: Shape) -> bool:
    one = shape.pledge
    return one is not None and one.in_deficit(shape.tier, cell.now_ms)


def spared(cell: Cell, run: Run) -> bool:
    """True iff the promises to a job within nominal quota forbid to preempt it now.

    Where time alone will change that, a round is asked for.
    """
    if run.part:
        return False
    shape, policy, now_ms = run.job.shape, cell.policy, cell.now_ms
    if run.lost_slot_s(now_ms) > policy.max_lost_s[shape.tier] * shape.slots:
        return True
    day = now_ms // DAY_MS
    if run.job.preempted_on == day:
        if run.job.preempted_then >= policy.preemptions_per_day[shape.tier]:
            cell.wake((day + 1) * DAY_MS)
            return True
    elif not policy.preemptions_per_day[shape.tier]:
        return True
    one = pledge(cell, shape.queue.account, run.accelerator)
    if not one.in_deficit(shape.tier, now_ms):
        return False
    wake_when_turned(cell, one, shape.tier)
    return True


def wake_when_turned(cell: Cell, one: Pledge, tier: int) -> None:
    turns_ms = one.turns_ms(tier, cell.now_ms)
    if turns_ms is not None:
        cell.wake(turns_ms)


def verdict(shape: Shape, blocked: Blocked) -> str:
    """Why no promise to the shape can be kept; empty if one can."""
    if blocked.reason in NEVER:
        return blocked.reason
    account = shape.queue.account
    if all(shape.size > account.brings(n.accelerator) for n in shape.needs):
        return "larger_than_nominal"
    return ""


def judge(turn: Turn, shape: Shape, blocked: Blocked) -> None:
    """Say at once that a promise is void, or that it holds again."""
    if shape.pledge is None or not _promised(turn.cell, shape):
        return
    void = verdict(shape, blocked)
    if void != shape.void:
        turn.emit(PromiseVoided(shape.id, void))


def close_windows(turn: Turn) -> None:
    """Tell what was due and delivered in the windows that are over."""
    cell = turn.cell
    over_ms = _window_begin(cell)
    if cell.windows_until_ms >= over_ms:
        return
    due = [p for _, p in sorted(cell.pledges.items()) if p.from_ms < over_ms and p.active]
    for one in due[:CLOSED_A_ROUND]:
        _close(turn, one, max(over_ms, one.since_ms))
    if len(due) > CLOSED_A_ROUND:
        cell.unfinished = True
    else:
        cell.windows_until_ms = over_ms


def _close(turn: Turn, one: Pledge, to_ms: int) -> None:
    from_ms = one.from_ms
    for tier in range(len(TIERS)):
        elapsed = to_ms - one.since_ms
        due = one.due[tier] + one.duing[tier] * elapsed
        delivered = one.delivered[tier] + one.delivering[tier] * elapsed
        if due:
            closed = SlaWindowClosed(
                account=one.account.id,
                accelerator=one.accelerator,
                tier=tier,
                from_ms=from_ms,
                to_ms=to_ms,
                due_slot_s=due // SLOT_S,
                delivered_slot_s=delivered // SLOT_S,
                met=delivered >= due,
                starts=one.starts[tier],
                late=one.late[tier],
            )
            turn.emit(closed)


def _window_begin(cell: Cell) -> int:
    return cell.now_ms - cell.now_ms % (1000 * cell.policy.sla_window_s)


def next_ms(cell: Cell) -> int | None:
    """When the next window closes in which something is due."""
    if not any(p.active for p in cell.pledges.values()):
        return None
    return _window_begin(cell) + 1000 * cell.policy.sla_window_s


# --- evolve ---------------------------------------------------------------------------------------


def apply_closed(cell: Cell, fact: SlaWindowClosed) -> None:
    one = cell.pledges[(fact.account, fact.accelerator)]
    one.settle(fact.to_ms)
    one.from_ms = fact.to_ms
    for sums in (one.due, one.delivered, one.starts, one.late):
        sums[fact.tier] = 0
    one.forget()
    cell.touch(one)


def apply_voided(cell: Cell, fact: PromiseVoided) -> None:
    """What waits counts as demand only while its promise can be kept."""
    shape = cell.shapes[fact.shape]
    assert shape.pledge is not None, "work in a reservation has the reservation's promise"
    amount = shape.waiting * shape.pledged
    if fact.reason and not shape.void:
        shape.pledge.wait(shape.tier, -amount)
    elif shape.void and not fact.reason:
        shape.pledge.wait(shape.tier, amount)
    shape.void = fact.reason
    cell.touch(shape)


# --- snapshots ------------------------------------------------------------------------------------


def restore(cell: Cell, states: list[Any]) -> None:
    """The pledges of a snapshot: rates follow from what is held and waits."""
    for account, accelerator, from_ms, since_ms, due, delivered, starts, late in states:
        # By its name: before rates were set, a type of today's group may have had its own.
        key = (account, accelerator)
        one = cell.pledges.get(key)
        if one is None:
            one = Pledge(cell.accounts[account], accelerator, cell.now_ms, cell.unsettled)
            cell.pledges[key] = one
        one.renew(cell.policy, cell.now_ms)
        one.due, one.delivered = [int(n) for n in due], [int(n) for n in delivered]
        one.starts, one.late = starts, late
        one.from_ms, one.since_ms = from_ms, since_ms
        one.forget()
    cell.unsettled.clear()
