"""Rounds on a virtual clock: a cell, its agents, and a clock that jumps to what happens next.

The clock stands on a grid of `round_ms`, so that what happens within one step is one round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Raw

from domain.cell import Cell
from domain.commands import Command
from domain.ledger import Accepted, Round, Signer, canonical
from domain.timers import next_due_ms
from streams import dispatch, rounds
from streams.decider import Settings
from streams.envelope import body_of
from streams.fleet import Fleet
from streams.scenario import Body

BOUNDS: Final = Settings()
"""Of a round, the same as a live decider's."""
REST_MS: Final = 100 * 86_400_000
"""What is due so long after the last event is taken for bookkeeping that goes on for ever."""
IDLE_ROUNDS: Final = 100
"""So many rounds without a command or a fact at one moment mean that time stands still."""


class Clockwork:
    """Moves a cell and its fleet from one moment to the next."""

    def __init__(
        self,
        cell: Cell,
        fleet: Fleet,
        signer: Signer,
        believed: Callable[[Round, bytes], object],
        *,
        voice: tuple[int, str],
        origin_ms: int,
        round_ms: int,
    ) -> None:
        """`believed` gets each round and its record; then the cell is in the state after it.

        What the fleet says comes on the input partition and from the source that `voice` names.
        """
        self.cell = cell
        self.fleet = fleet
        self.now_ms = origin_ms
        self._signer = signer
        self._believed = believed
        self._partition, self._source = voice
        self._origin_ms = origin_ms
        self._round_ms = round_ms
        self._sweep = rounds.Sweep()
        self._offset = 0
        self._pending: list[Accepted] = []
        self._busy_ms = origin_ms
        """When an agent, or anyone else, had last something to say, now or later."""
        self._due_ms: int | None = None
        """When something is due in the cell without any command."""
        self._full = False
        """The last round's work was spent before all that could start was started."""

    def resume(self, last: Round | None) -> None:
        """The cell's last round was made by someone else: go on from it."""
        self.now_ms = self._busy_ms = max(self.now_ms, self.cell.now_ms)
        if last is not None:
            self._after(last)

    def on_grid(self, at_ms: int) -> int:
        """The first moment of the grid that is not before this one."""
        steps = -(-(at_ms - self._origin_ms) // self._round_ms)
        return self._origin_ms + steps * self._round_ms

    def next_ms(self, arrival_ms: int | None = None) -> int | None:
        """The next moment on the grid at which something happens; None if nothing ever will."""
        moments = [self.fleet.next_ms(), arrival_ms]
        if self._pending or self._full:
            moments.append(self.now_ms)
        if any(m is not None for m in moments):
            self._busy_ms = self.now_ms
        if self._due_ms is not None and self._due_ms <= self._busy_ms + REST_MS:
            moments.append(self._due_ms)
        known = [m for m in moments if m is not None]
        return max(self.now_ms, self.on_grid(min(known))) if known else None

    def say(self, type_: str, body: Body) -> None:
        """A command comes at this moment."""
        id_ = str(self._offset)
        data = Raw(canonical(body))
        place = (self._partition, self._offset)
        voice = self._source
        self.take([Accepted(*place, id_, voice, type_, voice, self.now_ms, data)])
        self._offset += 1

    def say_command(self, command: Command) -> None:
        self.say(type(command).__name__, body_of(command))

    def take(self, commands: Sequence[Accepted]) -> None:
        self._pending.extend(commands)

    def step(self) -> None:
        """Let the agents speak, and decide what has come."""
        for command in self.fleet.advance(self.now_ms):
            self.say_command(command)
        self.settle()

    def settle(self) -> None:
        """Decide what has come, and all that is due at this moment."""
        idle = 0
        while self._pending or self._full or self._is_due():
            taken = rounds.cut(self._pending[: BOUNDS.max_commands], BOUNDS.max_bytes)
            del self._pending[: len(taken)]
            made = self._round(taken)
            idle = 0 if taken or made.facts else idle + 1
            assert idle < IDLE_ROUNDS, f"what is due at {self._due_ms} never passes"

    def _is_due(self) -> bool:
        return self._due_ms is not None and self._due_ms <= self.now_ms

    def _round(self, taken: Sequence[Accepted]) -> Round:
        cell = self.cell
        header = rounds.header_of(cell, self.now_ms, BOUNDS.work)
        candidate = rounds.propose(cell, header, taken, self._signer)
        made = candidate.round
        cell.believe(candidate.head, made.inputs)
        self._after(made)
        self.fleet.handle(dispatch.instructions(cell, made), self.now_ms)
        self._believed(made, candidate.record)
        self._sweep.after(made)
        return made

    def _after(self, made: Round) -> None:
        self._due_ms = next_due_ms(self.cell)
        self._full = bool(made.facts) and self.cell.unfinished
