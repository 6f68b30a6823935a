"""Jobs that outlive their region: copies of them at peers, and who is held for lost.

A job that may fail over has a guardian, a peer that keeps a copy of it. Its token is the region's
that runs it; of the next token only the guardian can become the owner: by a hand-off, or, once the
region is held for lost, by adopting the copy. So whatever the region does meanwhile, a job has one
owner for each token. And one outcome: while it is guarded, it ends only if its guardian lets go of
the copy, in one write of the guardian's ledger, that either this or the adoption is.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any

from domain.pool.facts import TokenOf

if TYPE_CHECKING:
    from domain.cell import Cell


class Guard:
    """Of a job that is here, or came to its end here while its guardian could not be asked."""

    __slots__ = (
        "amended",
        "body",
        "by",
        "id",
        "kept",
        "mark",
        "outcome",
        "over",
        "past",
        "reason",
        "taken",
        "token",
    )
    kind = "guard"

    def __init__(self, job: str, token: TokenOf, body: bytes) -> None:
        self.id = job
        self.token = token
        self.body = body
        """The message that the guardian makes its copy of."""
        self.by = ""
        """The guardian; empty: no peer would be."""
        self.past: list[str] = []
        """Those that would not."""
        self.kept = False
        """The guardian has its copy."""
        self.amended = 0
        """So often the job was amended since."""
        self.outcome = ""
        """To which end the job has come, if the guardian agrees."""
        self.reason = ""
        self.taken = False
        """The guardian has brought the job back; what runs here stops."""
        self.over = False
        """The job has ended; the guardian was held for lost and has to hear of it."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.token,
            self.body,
            self.by,
            self.past,
            self.kept,
            self.outcome,
            self.reason,
            self.taken,
            self.over,
            self.amended,
        )

    @staticmethod
    def load(id_: str, token: Any, body: bytes, *state: Any) -> Guard:
        guard = Guard(id_, tuple(token), body)
        guard.by, guard.past, guard.kept, guard.outcome, guard.reason, *more = state
        guard.taken, guard.over, guard.amended = more
        return guard


class Copy:
    """Of a peer's job; after it ended, what is remembered of it."""

    __slots__ = ("body", "ended_ms", "epoch", "id", "mark", "source", "token")
    kind = "copy"

    def __init__(self, id_: str, token: TokenOf, source: str, epoch: int, body: bytes) -> None:
        self.id = id_
        self.token = token
        self.source = source
        self.epoch = epoch
        """Of the ledger that the job is in."""
        self.body = body
        """As the peer sent it."""
        self.ended_ms = 0
        """0: the job may be brought back. After: no message about this token counts any more."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.token, self.source, self.epoch, self.body, self.ended_ms)

    @staticmethod
    def load(id_: str, token: Any, source: str, epoch: int, body: bytes, ended_ms: int) -> Copy:
        copy = Copy(id_, tuple(token), source, epoch, body)
        copy.ended_ms = ended_ms
        return copy


class Fence:
    """A peer that is held for lost, or would be if a majority of the regions agreed."""

    __slots__ = ("fenced", "id", "mark", "since_ms")
    kind = "fence"

    def __init__(self, region: str, since_ms: int) -> None:
        self.id = region
        self.since_ms = since_ms
        self.fenced = False
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.since_ms, self.fenced)

    @staticmethod
    def load(region: str, since_ms: int, fenced: bool) -> Fence:
        fence = Fence(region, since_ms)
        fence.fenced = fenced
        return fence


class Guards:
    """Guards by job, copies by job, fences by region; and the first two by the peer they tie to."""

    def __init__(self) -> None:
        self.of: dict[str, Guard] = {}
        self.copies: dict[str, Copy] = {}
        self.fences: dict[str, Fence] = {}
        # Derived:
        self.alone: dict[str, None] = {}
        """Jobs here that have no guardian yet, and may fail over."""
        self.by: dict[str, dict[str, Guard]] = {}
        self.copies_of: dict[tuple[str, int], dict[str, Copy]] = {}
        """Those that may be brought back, by region and the epoch of its ledger."""
        self._ended: list[tuple[int, str]] = []

    def fenced(self, region: str) -> bool:
        fence = self.fences.get(region)
        return fence is not None and fence.fenced

    def ties(self, region: str) -> bool:
        """True iff this region and the peer have a guarded job in common."""
        return bool(self.by.get(region)) or self.has_copies(region)

    def has_copies(self, region: str) -> bool:
        return self.copies_of_peer(region) > 0

    def copies_of_peer(self, region: str) -> int:
        """How many of the peer's jobs this region could bring back."""
        return sum(len(kept) for (source, _), kept in self.copies_of.items() if source == region)

    def must_ask(self, job: str) -> bool:
        """True iff the job cannot come to its end here by itself."""
        guard = self.of.get(job)
        return guard is not None and bool(guard.by) and not self.fenced(guard.by)

    def keeps_from(self, job: str, peer: str) -> bool:
        """True iff the job may not go to the peer: only its guardian may have it next."""
        guard = self.of.get(job)
        return guard is not None and guard.by not in ("", peer)

    def held_back(self, job: str) -> bool:
        """True iff the job has come to an end to which its guardian has not agreed yet."""
        guard = self.of.get(job)
        return guard is not None and bool(guard.outcome) and not guard.over

    def ended(self, cell: Cell, job: str) -> None:
        """The job has ended here: what its guardian could not be asked about, it has to hear."""
        guard = self.of.get(job)
        if guard is None or not guard.by:
            self.drop(cell, job)
        else:
            guard.over = True
            cell.touch(guard)

    def gone(self, cell: Cell, region: str) -> None:
        """The peer is one no more: what it guarded gets another guardian."""
        fence = self.fences.pop(region, None)
        if fence is not None:
            cell.left(fence)
        for guard in list(self.by.get(region, {}).values()):
            if guard.over:
                self.drop(cell, guard.id)
            else:
                self.declined(guard)
                cell.touch(guard)

    def declined(self, guard: Guard) -> None:
        """Another peer is asked."""
        self.untie(guard)
        guard.past, guard.by, guard.kept = [*guard.past, guard.by], "", False
        self.alone[guard.id] = None

    def lost_by(self, cell: Cell, peer: str) -> None:
        """The peer lost its copies with its ledger: they are sent again."""
        for guard in self.by.get(peer, {}).values():
            guard.kept = False
            cell.touch(guard)

    # --- what the fold does -----------------------------------------------------------------------

    def put(self, guard: Guard) -> None:
        self.of[guard.id] = guard
        if guard.by:
            self.by.setdefault(guard.by, {})[guard.id] = guard

    def drop(self, cell: Cell, job: str) -> None:
        """The job needs no guardian any more."""
        self.alone.pop(job, None)
        guard = self.of.pop(job, None)
        if guard is not None:
            self.untie(guard)
            cell.left(guard)

    def untie(self, guard: Guard) -> None:
        if guard.by:
            self.by[guard.by].pop(guard.id, None)

    def keep(self, copy: Copy) -> None:
        self.copies[copy.id] = copy
        if copy.ended_ms:
            heappush(self._ended, (copy.ended_ms, copy.id))
        else:
            self.copies_of.setdefault((copy.source, copy.epoch), {})[copy.id] = copy

    def discard(self, cell: Cell, job: str) -> None:
        """Forget the copy, whatever became of it."""
        copy = self.copies.pop(job, None)
        if copy is not None:
            self.copies_of.get((copy.source, copy.epoch), {}).pop(job, None)
            cell.left(copy)

    def forget(self, cell: Cell, before_ms: int) -> None:
        """Forget copies that ended before; nobody can speak of their tokens any more."""
        while self._ended and self._ended[0][0] < before_ms:
            ended_ms, id_ = heappop(self._ended)
            copy = self.copies.get(id_)
            if copy is not None and copy.ended_ms == ended_ms:
                self.discard(cell, id_)
