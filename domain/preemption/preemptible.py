"""Attempts that may be preempted, those first that lose least for each slot.

What an attempt would lose grows with time, for each slot equally fast: so their order stands until
one of them starts to run, or saves its work.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from domain.quota import Account
    from domain.runs import Run

END: Final = 1 << 62
SOME: Final = 256
"""Entries that are copied at once: mostly few of ten thousands are asked for."""

Entry = tuple[int, int, int, "Run"]
"""(-what it loses for a slot, in ms, beyond the time now; number of the job, part; attempt).

The last loses least. Of equals it is the later job's. New attempts come last, which is cheap."""


class Preemptible:
    """Started attempts of one type and tier, outside of reservations."""

    __slots__ = ("_entry", "by_account", "entries", "held", "starting")

    def __init__(self) -> None:
        self.starting: dict[Run, None] = {}
        """They do not run yet."""
        self.entries: list[Entry] = []
        """Those that run, in order."""
        self.by_account: dict[Account, list[Entry]] = {}
        """The same by account."""
        self.held: dict[Account, int] = {}
        """Thousandths of slots by account."""
        self._entry: dict[Run, Entry] = {}
        """The same by attempt, as they began to run."""

    def add(self, run: Run) -> None:
        self._hold(run, run.size)
        if run.running_ms:
            self._put(run)
        else:
            self.starting[run] = None

    def drop(self, run: Run) -> None:
        """Take the attempt out, if it is in."""
        entry = self._entry.pop(run, None)
        if entry is not None:
            self._take(entry)
        elif run in self.starting:
            del self.starting[run]
        else:
            return
        self._hold(run, -run.size)

    def moved(self, run: Run) -> None:
        """What the attempt would lose counts from another moment, if it is in."""
        entry = self._entry.get(run)
        if entry is not None:
            self._take(entry)
            self._put(run)
        elif run.running_ms and run in self.starting:
            del self.starting[run]
            self._put(run)

    def _hold(self, run: Run, more: int) -> None:
        account = run.job.shape.queue.account
        held = self.held.pop(account, 0) + more
        if held:  # some hold nothing but host parts
            self.held[account] = held

    def _put(self, run: Run) -> None:
        entry = self._entry[run] = (-dearness_ms(run), run.job.number, run.part, run)
        insort(self.entries, entry)
        insort(self.by_account.setdefault(run.job.shape.queue.account, []), entry)

    def _take(self, entry: Entry) -> None:
        account = entry[3].job.shape.queue.account
        own = self.by_account[account]
        del self.entries[bisect_left(self.entries, entry)]
        del own[bisect_left(own, entry)]
        if not own:
            del self.by_account[account]

    def began_after(self, at_ms: int) -> int | None:
        """When the first of them that began to run after a moment did."""
        found: int | None = None
        for run in reversed(self._entry):
            if run.running_ms <= at_ms:
                break
            found = run.running_ms
        return found

    def __iter__(self) -> Iterator[Run]:
        yield from self.starting
        yield from self._entry

    def __len__(self) -> int:
        return len(self.starting) + len(self.entries)


def dearness_ms(run: Run) -> int:
    """With the time now it is what the attempt loses for each of its slots."""
    if run.part:  # its attempt goes on with all that the part has done
        return -END
    return run.job.shape.restore_ms - max(run.running_ms, run.checkpoint_ms)


def merged(lists: Iterable[list[Entry]]) -> Iterator[Entry]:
    """All entries of lists that are in order, the last first. Some may be taken out meanwhile."""
    ends = sorted((entries[-1], entries, entries[-SOME:-1]) for entries in lists if entries)
    while ends:
        entry, entries, copied = ends.pop()
        yield entry
        if not copied:
            before = bisect_left(entries, entry)
            copied = entries[max(0, before - SOME) : before]
        if copied:
            insort(ends, (copied.pop(), entries, copied))
