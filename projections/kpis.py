"""Usage, chargeback and key figures: views of the books, so that they cannot disagree.

A row holds totals up to its last change, and rates; what is answered is as of the round that the
answer reflects. Amounts are slot-seconds, ratios are in millionths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from domain.accounting import Book, Use
from domain.delays import Delays
from projections.store import Fields

Values = dict[str, Any]

MILLI_MS: Final = 1_000_000
"""Thousandths of slots x milliseconds in a slot-second."""
PPM: Final = 1_000_000
OCCUPIED: Final = ("productive", "overhead", "lost_preempted", "lost_failed")
HELD: Final = (*OCCUPIED, "reserved_idle", "claimed")
NAMES: Final = tuple(use.name.lower() for use in Use)


def book(entity: Book) -> Values:
    return {
        "since_ms": entity.since_ms,
        "settled": dict(zip(NAMES, entity.settled, strict=True)),
        "rates_milli": dict(zip(NAMES, entity.rates, strict=True)),
    }


def delays(entity: Delays) -> Values:
    return {
        "rank": entity.id,
        "total_ms": entity.total_ms,
        "late": entity.late,
        "counts": list(entity.counts),
    }


def totals(rows: Iterable[Fields], at_ms: int) -> dict[str, int]:
    """By use, thousandths of slots x milliseconds up to a moment, of all the rows together."""
    found = dict.fromkeys(NAMES, 0)
    for row in rows:
        elapsed = at_ms - row["since_ms"]
        for use in NAMES:
            found[use] += row["settled"].get(use, 0) + row["rates_milli"].get(use, 0) * elapsed
    return found


def usage(row: Fields, at_ms: int) -> Values:
    """What one account has had of one type."""
    found = totals([row], at_ms)
    return {
        "account": row["account"],
        "accelerator": row["accelerator"],
        "slot_s": {use: n // MILLI_MS for use, n in found.items() if use in HELD},
        "total_slot_s": sum(found.values()) // MILLI_MS,
        "now_milli": sum(row["rates_milli"].values()),
    }


def figures(rows: Sequence[Fields], at_ms: int) -> Values:
    """Key figures of the slots that the rows speak of, since the first node came."""
    found = totals(rows, at_ms)
    occupied = sum(found[use] for use in OCCUPIED)
    capacity = sum(found.values())
    return {
        "slot_s": {use: n // MILLI_MS for use, n in found.items()},
        "capacity_slot_s": capacity // MILLI_MS,
        "allocation_ppm": _ratio(sum(found[use] for use in HELD), capacity),
        "goodput_ppm": _ratio(found["productive"], capacity),
        "preemption_waste_ppm": _ratio(found["lost_preempted"], occupied),
        "failure_waste_ppm": _ratio(found["lost_failed"], occupied),
        "fragmentation_ppm": _ratio(found["fragmented"], capacity),
        "unhealthy_ppm": _ratio(found["unhealthy"], capacity),
    }


def delay(row: Fields) -> Values:
    """How long the first starts of one tier took: bounds from above, by powers of two."""
    starts = sum(row["counts"])
    return {
        "tier": row["tier"],
        "starts": starts,
        "mean_ms": row["total_ms"] // starts if starts else 0,
        "p50_below_s": _below(row["counts"], starts, 50),
        "p95_below_s": _below(row["counts"], starts, 95),
        "late": row["late"],
    }


def _below(counts: list[int], starts: int, percent: int) -> int:
    seen = 0
    for k, count in enumerate(counts):
        seen += count
        if 100 * seen >= percent * starts:
            return int(1 << k)
    return 0


def _ratio(part: int, whole: int) -> int:
    return part * PPM // whole if whole else 0
