"""Every state that a small pool can get into, whatever is lost, late, repeated or out of order.

Whatever was ever said may be heard at any time, any number of times, or never: so loss, delay,
repetition, disorder and a crash between the ledger and its outbox are all the same, and are all
there. An agent may hear of a start long after the ledger gave the attempt up (a zombie). The fence
is the job's commit record: it takes nothing from an attempt whose token is not the highest that
ever started.

Sets of what was said and started are kept as bits of one number each, so that a state is small.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from msgspec import Struct

from tests.protocol import world
from tests.protocol.world import Heard, Identity, Process, Regions

UNBOUNDED: Final = 1 << 60


class State(NamedTuple):
    cells: tuple[int, ...]
    said: int = 0
    starts: int = 0
    """Told to agents, heard or not."""
    spawned: int = 0
    gone: int = 0
    """Those of them that run no more."""
    commits: tuple[Identity, ...] = ()
    """What was written for good, sorted; a job twice is a fault."""
    ended: tuple[Identity, ...] = ()
    """Outcomes in ledgers, sorted."""
    asked: int = 0
    """What an operator did."""
    reborn: bool = False


class Violation(Exception):
    def __init__(self, rule: str, path: list[str]) -> None:
        super().__init__(f"{rule}, after: {'; '.join(path)}")
        self.rule = rule
        self.path = path


class Rebirth(Struct, frozen=True):
    """A region loses its ledger, and comes back with another epoch."""

    region: int
    cell: int
    """Its state then."""
    jobs: frozenset[Identity]
    """What has to have an outcome from then on; the jobs before may be lost."""


class Model(Struct):
    """A pool, what may happen in it, and what must hold."""

    regions: Regions
    jobs: frozenset[Identity]
    limit: int = UNBOUNDED
    """Of rights in all, in thousandths of slots."""
    operator: tuple[Heard, ...] = ()
    """Each may be done once, at any time."""
    always: tuple[Heard, ...] = ()
    """May be heard at any time, besides what peers seem to have."""
    fence: bool = True
    failover: bool = False
    """A region may have a job whose next token is another one's already."""
    rebirth: Rebirth | None = None


class Found(Struct):
    states: int
    edges: int
    complete: int
    """States in which every job has its outcome."""
    cut: bool
    """The bound was met before all was seen."""
    locals: int
    """Different states of single cells."""


class _Moves(NamedTuple):
    """A step of one cell, as changes of a state."""

    cell: int
    said: int
    starts: int
    ended: tuple[Identity, ...]


class Explorer:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.regions = model.regions
        self._heard: dict[Heard, int] = {}
        self._letters: list[Heard] = []
        self._to = [0] * len(self.regions.names)
        """By region: bits of what is said to it."""
        self._processes: list[Process] = []
        self._number: dict[Process, int] = {}
        self._moves: dict[tuple[int, int], _Moves] = {}
        self._ticks: dict[int, _Moves | None] = {}
        self._idle: dict[int, int] = {}
        """By state of a cell: bits of what changes nothing in it."""
        self._faults: dict[tuple[object, ...], str] = {}
        self._operator = [self._bit(h) for h in model.operator]
        hints = [h for name in self.regions.names for h in self.regions.hints(name)]
        said = 0
        for heard in (*hints, *self.regions.first_said(), *model.always):
            said |= 1 << self._bit(heard)
        starts = self._bits(self.regions.first_starts())
        self.first = State(tuple(self.regions.start), said, starts)

    # --- numbers ---

    def _bit(self, heard: Heard) -> int:
        bit = self._heard.get(heard)
        if bit is None:
            bit = self._heard[heard] = len(self._letters)
            self._letters.append(heard)
            self._to[self.regions.names.index(heard.to)] |= 1 << bit
        return bit

    def _bits(self, processes: frozenset[Process] | tuple[Process, ...]) -> int:
        bits = 0
        for process in sorted(processes):
            if process not in self._number:
                self._number[process] = len(self._processes)
                self._processes.append(process)
            bits |= 1 << self._number[process]
        return bits

    def _of(self, bits: int) -> list[Process]:
        return [self._processes[n] for n in _ones(bits)]

    # --- steps ---

    def _hear(self, index: int, state: State, heard: Heard) -> _Moves:
        return self._moves_of(state.cells[index], self._bit(heard))

    def _moves_of(self, cell: int, bit: int) -> _Moves:
        moves = self._moves.get((cell, bit))
        if moves is None:
            step = self.regions.hear(cell, self._letters[bit])
            moves = self._moves[cell, bit] = self._translated(step)
            if moves.cell == cell and not (moves.said or moves.starts or moves.ended):
                self._idle[cell] = self._idle.get(cell, 0) | 1 << bit
        return moves

    def _translated(self, step: world.Step) -> _Moves:
        said = 0
        for heard in step.said:
            said |= 1 << self._bit(heard)
        return _Moves(step.state, said, self._bits(step.starts), step.ended)

    def _apply(self, state: State, index: int, moves: _Moves) -> State:
        ended = state.ended
        if moves.ended:
            ended = tuple(sorted((*ended, *moves.ended)))
        cells = (*state.cells[:index], moves.cell, *state.cells[index + 1 :])
        said, starts = state.said | moves.said, state.starts | moves.starts
        return state._replace(cells=cells, said=said, starts=starts, ended=ended)

    def successors(self, state: State) -> Iterator[tuple[str, State]]:
        for index, cell in enumerate(state.cells):
            if cell not in self._ticks:
                step = self.regions.tick(cell)
                self._ticks[cell] = None if step is None else self._translated(step)
            moves = self._ticks[cell]
            if moves is not None:
                yield (
                    f"time passes in {self.regions.names[index]}",
                    self._apply(state, index, moves),
                )
            for bit in _ones(state.said & self._to[index] & ~self._idle.get(cell, 0)):
                after = self._apply(state, index, self._moves_of(cell, bit))
                yield self._told(bit), after
            for place, bit in enumerate(self._operator):
                if self._to[index] >> bit & 1 and not state.asked >> place & 1:
                    after = self._apply(state, index, self._moves_of(cell, bit))
                    yield self._told(bit), after._replace(asked=state.asked | 1 << place)
        yield from self._of_agents(state)
        rebirth = self.model.rebirth
        if rebirth is not None and not state.reborn:
            after = self._apply(state, rebirth.region, _Moves(rebirth.cell, 0, 0, ()))
            yield "a ledger is lost", after._replace(reborn=True)

    def _told(self, bit: int) -> str:
        heard = self._letters[bit]
        return f"{heard.to} hears {heard.type} of {heard.source}"

    def _of_agents(self, state: State) -> Iterator[tuple[str, State]]:
        spawned = self._of(state.spawned)
        for number in _ones(state.starts & ~state.spawned):
            new = self._processes[number]
            same = [p for p in spawned if (p.region, p.job) == (new.region, new.job)]
            if all(p.token < new.token for p in same):
                after = state._replace(spawned=state.spawned | 1 << number)
                yield f"{new.id} {new.token} starts in {new.region}", after
        for number in _ones(state.spawned & ~state.gone):
            process = self._processes[number]
            after = self._ends(state._replace(gone=state.gone | 1 << number), process)
            yield f"{process.id} {process.token} ends in {process.region}", after

    def _ends(self, state: State, process: Process) -> State:
        """It writes its result and says so, unless it is fenced off."""
        newest = max(p.token for p in self._of(state.spawned) if p.job == process.job)
        if self.model.fence and process.token < newest:
            return state
        commits = state.commits
        if not (self.model.fence and process.job in commits):
            commits = tuple(sorted((*commits, process.job)))
        said = state.said | 1 << self._bit(world.report(process))
        return state._replace(commits=commits, said=said)

    # --- what must hold ---

    def fault(self, state: State) -> str:
        """The rule that the state breaks; empty if it breaks none."""
        for job in state.commits:
            if state.commits.count(job) > 1:
                return f"{job[1]} was committed twice"
        if self.model.fence:
            running = self._of(state.spawned & ~state.gone)
            for process in running:
                same = [p for p in running if (p.job, p.token) == (process.job, process.token)]
                if len(same) > 1:
                    return f"{process.job[1]} has two effective runners"
        key = (state.cells, state.ended, state.reborn)
        found = self._faults.get(key)
        if found is None:
            found = self._faults[key] = self._fault_of_ledgers(state)
        return found

    def wanted(self, state: State) -> frozenset[Identity]:
        """Jobs that must have an outcome in the end."""
        rebirth = self.model.rebirth
        return rebirth.jobs if rebirth is not None and state.reborn else self.model.jobs

    def _fault_of_ledgers(self, state: State) -> str:
        locals_ = [self.regions.locals[n] for n in state.cells]
        by_name = dict(zip(self.regions.names, locals_, strict=True))
        wanted = self.wanted(state)
        for job in sorted(wanted | self.model.jobs):
            newest = max(local.seen.get(job, -1) for local in locals_)
            owners = sum(
                job in local.owned and not (self.model.failover and local.owned[job] < newest)
                for local in locals_
            )
            flying = sum(
                by_name[to].seen.get(job, -1) < hop
                for local in locals_
                for flown, hop, to in local.flights
                if flown == job
            )
            ended = state.ended.count(job)
            if owners > 1:
                return f"{job[1]} has two owners"
            if ended > 1:
                return f"{job[1]} has two outcomes"
            if ended and owners + flying:
                return f"{job[1]} ended and is still there"
            if job in wanted and not ended and owners + flying != 1:
                return f"{job[1]} is {'in two places' if owners + flying else 'lost'}"
        held = sum(sum(local.rights.values()) for local in locals_)
        used = sum(local.used for local in locals_)
        if used > held or held > self.model.limit:
            return f"{used} used of {held} rights of {self.model.limit}"
        return ""


def _ones(bits: int) -> Iterator[int]:
    while bits:
        low = bits & -bits
        yield low.bit_length() - 1
        bits ^= low


def explore(model: Model, max_states: int = UNBOUNDED) -> Found:
    """Visit all states, breadth first. Raises Violation; with a bound, for what is seen by then."""
    explorer = Explorer(model)
    numbers = {explorer.first: 0}
    parents = array("I", [0])
    sources, targets = array("I"), array("I")
    complete: list[int] = []
    queue = deque([explorer.first])
    number = -1
    while queue:
        state = queue.popleft()
        number += 1
        rule = explorer.fault(state)
        if rule:
            raise Violation(rule, _path(explorer, numbers, parents, number))
        if explorer.wanted(state) <= set(state.ended):
            complete.append(number)
        for _, after in explorer.successors(state):
            known = numbers.setdefault(after, len(parents))
            if known == number:
                continue
            if known == len(parents):
                parents.append(number)
                queue.append(after)
            sources.append(number)
            targets.append(known)
        if len(parents) >= max_states:
            break
    edges, size = len(sources), len(model.regions.locals)
    if not queue:
        stuck = _cannot_reach(len(parents), sources, targets, complete)
        if stuck is not None:
            raise Violation("it can never complete", _path(explorer, numbers, parents, stuck))
    return Found(len(parents), edges, len(complete), bool(queue), size)


def _path(
    explorer: Explorer, numbers: dict[State, int], parents: array[int], end: int
) -> list[str]:
    """What led there."""
    states = list(numbers)
    path = []
    while end:
        before = parents[end]
        steps = explorer.successors(states[before])
        path.append(next(what for what, after in steps if after == states[end]))
        end = before
    return path[::-1]


def _cannot_reach(
    size: int, sources: array[int], targets: array[int], goals: list[int]
) -> int | None:
    """The first state from which no goal can be reached."""
    to = np.frombuffer(targets, dtype=np.uint32)
    order = np.argsort(to, kind="stable")
    back = np.frombuffer(sources, dtype=np.uint32)[order]
    begins = np.searchsorted(to[order], np.arange(size + 1))
    reaches = np.zeros(size, dtype=bool)
    reaches[goals] = True
    front = list(goals)
    while front:
        number = front.pop()
        for before in back[begins[number] : begins[number + 1]].tolist():
            if not reaches[before]:
                reaches[before] = True
                front.append(before)
    left = np.flatnonzero(~reaches)
    return int(left[0]) if len(left) else None
