"""Attempts that may be preempted, those first that lose least for each slot.

What an attempt would lose grows with time, for each slot equally fast: so their order stands until
one of them starts to run, or saves its work.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import chain, takewhile
from typing import TYPE_CHECKING, Final

from domain.runs import UNORDERED

if TYPE_CHECKING:
    from domain.quota import Account
    from domain.runs import Run

END: Final = 1 << 62
SOME: Final = 256
"""Entries that are copied at once: mostly few of ten thousands are asked for."""

Entry = tuple[int, int, int, "Run"]
"""(-what it loses for a slot, in ms, beyond the time now; number of the job, part; attempt).

The last loses least. Of equals it is the later job's. New attempts come last, which is cheap."""


class Ordered:
    """Entries in order; of some nothing stands any more but the gap, until there are too many."""

    __slots__ = ("entries", "gaps")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.gaps = 0

    def put(self, entry: Entry) -> None:
        insort(self.entries, entry)

    def took(self) -> None:
        """One of the entries stands no more: to close the gap at once would move all behind it."""
        self.gaps += 1
        if 2 * self.gaps > len(self.entries):
            self.entries[:] = [e for e in self.entries if stands(e)]
            self.gaps = 0


class Preemptible:
    """Started attempts of one type and tier, outside of reservations."""

    __slots__ = ("by_account", "held", "old", "ordered", "starting", "young")

    def __init__(self) -> None:
        self.starting: dict[Run, None] = {}
        """They do not run yet."""
        self.young: dict[Run, None] = {}
        """Those that run and were not asked for yet, as they began."""
        self.old: dict[Run, None] = {}
        """The others that run, as they began; they began before."""
        self.ordered = Ordered()
        """The old ones."""
        self.by_account: dict[Account, Ordered] = {}
        """The same by account."""
        self.held: dict[Account, int] = {}
        """Thousandths of slots by account."""

    def add(self, run: Run) -> None:
        self._hold(run, run.size)
        if run.running_ms:
            self.young[run] = None
        else:
            self.starting[run] = None

    def drop(self, run: Run) -> None:
        """Take the attempt out, if it is in."""
        if run.place != UNORDERED:
            self._take(run)
            del self.old[run]
        elif run in self.young:
            del self.young[run]
        elif run in self.starting:
            del self.starting[run]
        else:
            return
        self._hold(run, -run.size)

    def moved(self, run: Run) -> None:
        """What the attempt would lose counts from another moment, if it is in."""
        if run.place != UNORDERED:
            if run.place != -dearness_ms(run):
                self._take(run)
                self._put(run)
        elif run.running_ms and run in self.starting:
            del self.starting[run]
            self.young[run] = None

    def grow_old(self, at_ms: int) -> None:
        """Those that began to run by then are asked for: they are put in order."""
        for run in list(takewhile(lambda r: r.running_ms <= at_ms, self.young)):
            del self.young[run]
            self.old[run] = None
            self._put(run)

    def _hold(self, run: Run, more: int) -> None:
        account = run.job.shape.queue.account
        held = self.held.pop(account, 0) + more
        if held:  # some hold nothing but host parts
            self.held[account] = held

    def _put(self, run: Run) -> None:
        run.place = -dearness_ms(run)
        entry = (run.place, run.job.number, run.part, run)
        account = run.job.shape.queue.account
        own = self.by_account.get(account)
        if own is None:
            own = self.by_account[account] = Ordered()
        self.ordered.put(entry)
        own.put(entry)

    def _take(self, run: Run) -> None:
        run.place = UNORDERED
        account = run.job.shape.queue.account
        own = self.by_account[account]
        self.ordered.took()
        own.took()
        if not own.entries:
            del self.by_account[account]

    def began_after(self, at_ms: int) -> int | None:
        """When the first of them that began to run after a moment did."""
        found: int | None = None
        for run in chain(reversed(self.young), reversed(self.old)):
            if run.running_ms <= at_ms:
                break
            found = run.running_ms
        return found

    def __iter__(self) -> Iterator[Run]:
        yield from self.starting
        yield from self.old
        yield from self.young

    def __len__(self) -> int:
        return len(self.starting) + len(self.young) + len(self.old)


def dearness_ms(run: Run) -> int:
    """With the time now it is what the attempt loses for each of its slots."""
    if run.part:  # its attempt goes on with all that the part has done
        return -END
    return run.job.shape.restore_ms - max(run.running_ms, run.checkpoint_ms)


def stands(entry: Entry) -> bool:
    """False once the attempt was taken out, or stands elsewhere."""
    return entry[3].place == entry[0]


def merged(lists: Iterable[list[Entry]]) -> Iterator[Entry]:
    """All entries that stand in lists in order, the last first. Lists may change meanwhile."""
    ends = sorted((entries[-1], entries, entries[-SOME:-1]) for entries in lists if entries)
    while ends:
        entry, entries, copied = ends.pop()
        if stands(entry):
            yield entry
        if not copied:
            before = bisect_left(entries, entry)
            copied = entries[max(0, before - SOME) : before]
        if copied:
            insort(ends, (copied.pop(), entries, copied))
