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
"""(what it loses for a slot, in ms, beyond the time now; -number of the job, -part; attempt).

Of equals the later job comes first."""


class Preemptible:
    """Started attempts of one type and tier, outside of reservations."""

    __slots__ = ("_began", "_keys", "by_account", "entries", "held", "starting")

    def __init__(self) -> None:
        self.starting: dict[Run, None] = {}
        """They do not run yet."""
        self.entries: list[Entry] = []
        """Those that run, in order."""
        self.by_account: dict[Account, list[Entry]] = {}
        """The same by account."""
        self.held: dict[Account, int] = {}
        """Thousandths of slots by account."""
        self._began: list[tuple[int, int, int]] = []
        """(when it began to run, number of the job, part), in order."""
        self._keys: dict[Run, tuple[Entry, tuple[int, int, int]]] = {}
        """Where each attempt stands in these."""

    def add(self, run: Run) -> None:
        account = run.job.shape.queue.account
        self._hold(account, run.size)
        self._rank(run, account)

    def drop(self, run: Run) -> None:
        """Take the attempt out, if it is in."""
        account = run.job.shape.queue.account
        if self._unrank(run, account):
            self._hold(account, -run.size)

    def moved(self, run: Run) -> None:
        """What the attempt would lose counts from another moment, if it is in."""
        account = run.job.shape.queue.account
        if self._unrank(run, account):
            self._rank(run, account)

    def _hold(self, account: Account, more: int) -> None:
        held = self.held.pop(account, 0) + more
        if held:  # some hold nothing but host parts
            self.held[account] = held

    def _rank(self, run: Run, account: Account) -> None:
        if not run.running_ms:
            self.starting[run] = None
            return
        entry: Entry = (dearness_ms(run), -run.job.number, -run.part, run)
        began = (run.running_ms, *run.order)
        self._keys[run] = entry, began
        insort(self.entries, entry)
        insort(self.by_account.setdefault(account, []), entry)
        insort(self._began, began)

    def _unrank(self, run: Run, account: Account) -> bool:
        if run in self.starting:
            del self.starting[run]
            return True
        keys = self._keys.pop(run, None)
        if keys is None:
            return False
        entry, began = keys
        own = self.by_account[account]
        _take(self.entries, entry)
        _take(own, entry)
        _take(self._began, began)
        if not own:
            del self.by_account[account]
        return True

    def began_after(self, at_ms: int) -> int | None:
        """When the first of them that began to run after a moment did."""
        at = bisect_right(self._began, (at_ms, END))
        return self._began[at][0] if at < len(self._began) else None

    def __iter__(self) -> Iterator[Run]:
        yield from self.starting
        yield from (run for *_, run in self.entries)

    def __len__(self) -> int:
        return len(self.starting) + len(self.entries)


def _take(entries: list[Any], entry: tuple[Any, ...]) -> None:
    del entries[bisect_left(entries, entry)]


def dearness_ms(run: Run) -> int:
    """With the time now it is what the attempt loses for each of its slots."""
    if run.part:  # its attempt goes on with all that the part has done
        return -END
    restore_ms = 1000 * run.job.shape.spec.runtime.restore_s
    return restore_ms - max(run.running_ms, run.checkpoint_ms)
