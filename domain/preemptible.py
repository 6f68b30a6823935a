"""Attempts that may be preempted, those first that lose least for each slot.

What an attempt would lose grows with time, for each slot equally fast: so their order stands until
one of them starts to run, or saves its work.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from domain.quota import Account
    from domain.runs import Run

END: Final = 1 << 62

Entry = tuple[int, int, int, "Run"]
"""(what it loses for a slot, in ms, beyond the time now; negative number of the job, and of the part;
attempt): of equals the later job comes first."""


class Preemptible:
    """Started attempts of one type and tier, outside of reservations."""

    __slots__ = ("_began", "_keys", "by_account", "entries", "held")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        """In order."""
        self.by_account: dict[Account, list[Entry]] = {}
        """The same by account."""
        self.held: dict[Account, int] = {}
        """Thousandths of slots by account."""
        self._began: list[tuple[int, int, int]] = []
        """(when it began to run, number of the job, part), in order."""
        self._keys: dict[Run, tuple[Entry, tuple[int, int, int]]] = {}
        """Where each attempt stands in these."""

    def add(self, run: Run) -> None:
        entry: Entry = (_dearness(run), -run.job.number, -run.part, run)
        began = (run.running_ms, *run.order)
        self._keys[run] = entry, began
        account = run.job.shape.queue.account
        insort(self.entries, entry)
        insort(self.by_account.setdefault(account, []), entry)
        insort(self._began, began)
        self.held[account] = self.held.get(account, 0) + run.size

    def drop(self, run: Run) -> bool:
        """Take the attempt out; False if it was not in."""
        keys = self._keys.pop(run, None)
        if keys is None:
            return False
        entry, began = keys
        account = run.job.shape.queue.account
        own = self.by_account[account]
        _take(self.entries, entry)
        _take(own, entry)
        _take(self._began, began)
        self.held[account] -= run.size
        if not own:
            del self.by_account[account], self.held[account]
        return True

    def moved(self, run: Run) -> None:
        """What the attempt would lose counts from another moment, if it is in."""
        if self.drop(run):
            self.add(run)

    def began_after(self, at_ms: int) -> int | None:
        """When the first of them that began to run after a moment did."""
        at = bisect_right(self._began, (at_ms, END))
        return self._began[at][0] if at < len(self._began) else None

    def __iter__(self) -> Iterator[Run]:
        return (run for *_, run in self.entries)

    def __len__(self) -> int:
        return len(self.entries)


def _take(entries: list[Any], entry: tuple[Any, ...]) -> None:
    del entries[bisect_left(entries, entry)]


def _dearness(run: Run) -> int:
    if run.part:  # its attempt goes on with all that the part has done
        return -END
    restore_ms = 1000 * run.job.shape.spec.runtime.restore_s
    return restore_ms - max(run.running_ms, run.checkpoint_ms)
