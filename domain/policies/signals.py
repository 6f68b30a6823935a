"""Signals: what rules read of the cell as a whole, frozen by a fact at the opening of a round.

They are measured in the first round of each minute, coarsely, and told only when they changed: what
rules say stays as it is in between. A round reads what rounds before it have left behind, so that
no rule ever waits for its own effect within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from domain.policies.commands import ReportSignal
from domain.policies.facts import SignalReported, SignalsFrozen
from domain.policies.state import Signals
from domain.refusals import Refused
from domain.specs import MAX_S, TIERS, Tier

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.turn import Turn

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
COARSE_PPM: Final = 10_000
"""Ratios are told in steps of so much."""
DAYS_BEFORE: Final = 3
"""The epoch began on a Thursday."""
PPM: Final = 1_000_000
REPORTED_MAX: Final = 64
SLOW: Final = ("signal.hour", "signal.weekday")


# --- decide ---------------------------------------------------------------------------------------


def freeze(turn: Turn, before_ms: int) -> None:
    """Measure what is read, if this is the first round of its minute."""
    cell = turn.cell
    period_ms = period(cell.rulebook.reads)
    if cell.now_ms // period_ms > before_ms // period_ms:
        freeze_now(turn, cell.rulebook.reads)


def freeze_now(turn: Turn, reads: Iterable[str]) -> None:
    values = measure(turn.cell, reads)
    known = turn.cell.signals.values
    if any(known.get(name) != value for name, value in values.items()):
        turn.emit(SignalsFrozen(dict(sorted({**known, **values}.items()))))


def report_signal(turn: Turn, command: ReportSignal, at: int) -> None:
    reported = turn.cell.signals.reported
    if command.signal not in reported and len(reported) >= REPORTED_MAX:
        raise Refused("too_many_signals", "signal", f"a cell keeps at most {REPORTED_MAX}")
    turn.emit(SignalReported(at))


def period(reads: Iterable[str]) -> int:
    """How long what is read stays as it is."""
    return HOUR_MS if all(name in SLOW for name in reads) else MINUTE_MS


def next_ms(cell: Cell) -> int | None:
    """When signals are measured again, if anyone reads them and there is work to decide about."""
    if not cell.rulebook.reads or not cell.jobs:
        return None
    period_ms = period(cell.rulebook.reads)
    return (cell.now_ms // period_ms + 1) * period_ms


# --- evolve ---------------------------------------------------------------------------------------


def apply_frozen(cell: Cell, fact: SignalsFrozen) -> None:
    cell.signals.values = fact.values
    cell.rulebook.dirty = True
    cell.touch(cell.signals)


def apply_reported(cell: Cell, fact: SignalReported) -> None:
    command = cell.command(fact.command, ReportSignal)
    cell.signals.reported[command.signal] = command.value
    cell.touch(cell.signals)


def restore(cell: Cell, state: list[list[tuple[str, int]]]) -> None:
    cell.signals = Signals()
    cell.signals.values, cell.signals.reported = dict(state[0]), dict(state[1])


# --- what is measured -----------------------------------------------------------------------------


def measure(cell: Cell, reads: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    waits: dict[str, int] | None = None
    for name in reads:
        key = name.removeprefix("signal.")
        if key.startswith("reported["):
            found[name] = cell.signals.reported.get(key[9:-1], 0)
        elif key.startswith(("wait_", "late_")):
            waits = waits if waits is not None else _waits(cell)
            found[name] = waits[key]
        else:
            found[name] = MEASURED[key](cell)
    return found


def _coarse(part: int, whole: int) -> int:
    ppm = part * PPM // whole if whole else 0
    return ppm - ppm % COARSE_PPM


def _slots(cell: Cell) -> int:
    return sum(cell.total.values())


def _free(cell: Cell) -> int:
    return sum(c.free for c in cell.fabric.classes.values())


def _utilisation(cell: Cell) -> int:
    slots = _slots(cell)
    return min(PPM, _coarse(max(0, slots - _free(cell)), slots))


def _fragmentation(cell: Cell) -> int:
    classes = cell.fabric.classes.values()
    whole = sum(c.slots * c.counts[c.slots] for c in classes)
    free = _free(cell)
    return _coarse(free - whole, free)


def _pressure(cell: Cell) -> int:
    waiting = sum(s.waiting * s.slots for s in cell.shapes.values())
    return min(1 << 40, _coarse(waiting, _slots(cell)))


def _waits(cell: Cell) -> dict[str, int]:
    """By tier: the longest wait in whole minutes, and shapes that wait longer than promised."""
    longest, late = [0] * len(TIERS), [0] * len(TIERS)
    delays_s = cell.policy.queue_delay_s
    for shape in cell.shapes.values():
        head = shape.head() if shape.waiting else None
        if head is not None:
            wait_s = max(0, cell.now_ms - head.seniority_ms) // 1000
            longest[shape.tier] = max(longest[shape.tier], wait_s)
            late[shape.tier] += wait_s > delays_s[shape.tier]
    found = {f"wait_{t}": min(MAX_S, s - s % 60) for t, s in zip(TIERS, longest, strict=True)}
    for tier in (Tier.PREMIUM, Tier.STANDARD):
        found[f"late_{tier}"] = late[TIERS.index(tier)]
    return found


def _minute(cell: Cell) -> int:
    return cell.now_ms // MINUTE_MS % 1440


def _hour(cell: Cell) -> int:
    return cell.now_ms // HOUR_MS % 24


def _weekday(cell: Cell) -> int:
    return (cell.now_ms // (24 * HOUR_MS) + DAYS_BEFORE) % 7


def _waiting(cell: Cell) -> int:
    return sum(s.waiting for s in cell.shapes.values())


MEASURED: Final[dict[str, Callable[[Cell], int]]] = {
    "minute": _minute,
    "hour": _hour,
    "weekday": _weekday,
    "utilisation": _utilisation,
    "free": _free,
    "fragmentation": _fragmentation,
    "pressure": _pressure,
    "waiting": _waiting,
}
