"""The reference node agent: it executes attempts in simulation and reports as a real one does.

It does no I/O and reads no clock: the caller hands it instructions with the time, asks when it
wants to be called next, and sends the commands with which it answers. One agent speaks for one
node or for thousands (`streams.fleet`). Fencing: of each job it knows the newest attempt that it
was told of, and what is said of an older one is ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final, Literal

from msgspec import Struct

from domain.commands import Command, RegisterNode, ReportAttempt, ReportCheckpoint, ReportNode
from streams.dispatch import Instruction, Kill, Start, Stop

State = Literal["running", "finished", "failed", "stopped"]

STOP_MS: Final = 1000
"""An attempt that is told to stop does so after this long, or at the end of its grace period."""

LEASE_PARTS: Final = 3
"""A lease is renewed this often in its own length."""

MAX_SEEN: Final = 1_000_000
"""Jobs whose newest attempt is remembered."""


class Work(Struct, frozen=True, gc=False):
    """What a job really needs, which nobody knows before it has run."""

    ms: int | None
    """Execution time from nothing to the end; None: it never ends by itself."""
    failures: int = 0
    """So many first attempts fail, half way through what they had left to do."""
    startup_ms: int = 0
    """Of the execution time, until an attempt reports that it runs."""


def estimated(start: Start) -> Work:
    """A job runs as long as it said it would: ten minutes if it did not say."""
    return Work(1000 * (start.estimate_s if start.estimate_s is not None else 600))


class _Execution:
    """An attempt on the agent's nodes."""

    __slots__ = (
        "begun_ms",
        "done_ms",
        "kept_ms",
        "left_ms",
        "live",
        "newest_part",
        "nodes",
        "parts",
        "plan",
        "saves",
        "since_ms",
        "start",
        "state",
        "stopping",
    )

    def __init__(self, start: Start, nodes: tuple[str, ...], kept_ms: int, restore_ms: int) -> None:
        self.start = start
        self.nodes = nodes
        """The agent's own among the attempt's nodes; empty if all of them are."""
        self.kept_ms = kept_ms
        """Work that was safe when it began."""
        self.begun_ms = start.started_ms + (restore_ms if kept_ms else 0)
        self.left_ms: int | None = None
        self.state: State = "finished"
        """How it ends, when it has done what was left."""
        self.parts: dict[int, Start] = {}
        """What it has grown by. It works as much faster as it has more replicas."""
        self.newest_part = 0
        self.done_ms = 0
        """Of what was left: what it had done when it last grew or shrank, which was since_ms."""
        self.since_ms = self.begun_ms
        self.plan = 0
        self.saves = 0
        """Checkpoints that this attempt wrote."""
        self.live = True
        self.stopping = False


class Agent:
    """Speaks for the nodes that were added to it."""

    def __init__(
        self,
        work_of: Callable[[Start], Work] = estimated,
        *,
        speed: int = 1,
        patience_ms: int = 0,
    ) -> None:
        """`speed` divides all execution times. Reports that nothing waits for (running,
        checkpoints) may be late by `patience_ms`, so that they travel with others.
        """
        self._work_of = work_of
        self._speed = speed
        self._patience_ms = patience_ms
        self._saved_ms: dict[str, int] = {}
        """The storage of checkpoints: work that is safe, by job."""
        self._nodes: dict[str, RegisterNode] = {}
        self._executions: dict[str, _Execution] = {}
        self._by_node: dict[str, set[str]] = {}
        self._cut_off: dict[str, list[_Execution]] = {}
        """By dead node: what ran there when it died, as its disk remembers, and what it was told
        to run since."""
        self._cut_parts: dict[str, list[Start]] = {}
        """By dead node: what elastic attempts had grown by there."""
        self._elastic = False
        """Some attempt has grown."""
        self._newest: dict[str, int] = {}
        self._urgent: list[tuple[int, int, Callable[[int], None]]] = []
        self._patient: list[tuple[int, int, Callable[[int], None]]] = []
        self._sequence = 0
        self._out: list[Command] = []

    @property
    def running(self) -> int:
        """Attempts that have a part on the agent's nodes."""
        return len(self._executions)

    # --- nodes ---

    def add_node(self, spec: RegisterNode, now_ms: int) -> None:
        """The node is up: it registers itself and then keeps its lease.

        What ran on it when it died is reported as failed, in case that nobody noticed its absence.
        """
        self._out.append(spec)
        for execution in self._cut_off.pop(spec.node, ()):
            self._report(execution, "failed")
        for start in self._cut_parts.pop(spec.node, ()):
            self._report_part(start, "failed")
        self._nodes[spec.node] = spec
        self._by_node.setdefault(spec.node, set())
        self._renew_after(spec, now_ms)
        self._at(self._urgent, now_ms, lambda now: None)

    def know_saved(self, job: str, kept_ms: int) -> None:
        """The job has so much work in a checkpoint, of an attempt before this agent's time."""
        self._saved_ms[job] = kept_ms

    def know_node(self, spec: RegisterNode, now_ms: int) -> None:
        """The node is up and registered already, as after a restart of the agent alone."""
        self._nodes[spec.node] = spec
        self._by_node.setdefault(spec.node, set())
        if spec.lease_s:
            self._at(self._urgent, now_ms, lambda now: self._renew(spec, now))

    def drop_node(self, node: str, now_ms: int) -> None:
        """The node is dead: it says nothing, and what ran on it is gone up to its checkpoints."""
        self._nodes.pop(node, None)
        for execution in list(self._executions.values()) if self._elastic else ():
            for part, start in list(execution.parts.items()):
                if any(placed[0] == node for placed in start.nodes):
                    self._cut_parts.setdefault(node, []).append(start)
                    self._resize(execution, part, None, now_ms)
        dead = [self._executions[job] for job in sorted(self._by_node.pop(node, ()))]
        self._cut_off.setdefault(node, []).extend(dead)
        for execution in dead:
            self._end(execution)

    def _renew_after(self, spec: RegisterNode, now_ms: int) -> None:
        if spec.lease_s:
            due_ms = now_ms + 1000 * spec.lease_s // LEASE_PARTS
            self._at(self._urgent, due_ms, lambda now: self._renew(spec, now))

    def _renew(self, spec: RegisterNode, now_ms: int) -> None:
        if self._nodes.get(spec.node) is spec:
            self._out.append(ReportNode(node=spec.node))
            self._renew_after(spec, now_ms)

    # --- instructions ---

    def handle(self, instruction: Instruction, now_ms: int) -> None:
        """Obey an instruction; one that is stale, repeated or for other nodes changes nothing."""
        match instruction:
            case Start() if instruction.part:
                self._grow(instruction, now_ms)
            case Start():
                self._start(instruction)
            case Stop() if instruction.part:
                self._shrink(instruction, now_ms)
            case Stop():
                self._stop(instruction, now_ms)
            case Kill() if instruction.part:
                grown = self._execution(instruction.job, instruction.attempt)
                if grown is not None:
                    grown.newest_part = max(grown.newest_part, instruction.part)
                    self._resize(grown, instruction.part, None, now_ms)
            case Kill():
                execution = self._executions.get(instruction.job)
                if execution is not None and execution.start.attempt <= instruction.attempt:
                    self._end(execution)
                self._see(instruction.job, instruction.attempt)

    def _start(self, start: Start) -> None:
        if start.attempt <= self._newest.get(start.job, 0):
            return
        older = self._executions.get(start.job)
        if older is not None:  # it is over, wherever the new one runs
            self._end(older)
        names = {placed[0] for placed in start.nodes}
        mine = {name for name in names if name in self._by_node}
        dead = {name for name in names if name in self._cut_off}
        self._see(start.job, start.attempt)  # elsewhere, too: an older start may come late
        for name in dead:
            self._cut_off[name].append(_Execution(start, (name,), 0, 0))
        if not mine:
            return
        whole = len(mine) == len(names)
        nodes = () if whole else tuple(sorted(mine))
        restore_ms = 1000 * start.restore_s // self._speed
        execution = _Execution(start, nodes, self._saved_ms.get(start.job, 0), restore_ms)
        self._executions[start.job] = execution
        for node in mine:
            self._by_node[node].add(start.job)
        self._plan(execution)

    # --- elastic attempts ---

    def _execution(self, job: str, attempt: int) -> _Execution | None:
        execution = self._executions.get(job)
        return execution if execution is not None and execution.start.attempt == attempt else None

    def _grow(self, start: Start, now_ms: int) -> None:
        execution = self._execution(start.job, start.attempt)
        if execution is None or start.part <= execution.newest_part:
            return
        execution.newest_part = start.part
        if all(placed[0] in self._nodes for placed in start.nodes):
            self._elastic = True
            self._resize(execution, start.part, start, now_ms)
        else:
            self._report_part(start, "failed")

    def _shrink(self, stop: Stop, now_ms: int) -> None:
        execution = self._execution(stop.job, stop.attempt)
        start = execution.parts.get(stop.part) if execution is not None else None
        if execution is None or start is None:
            return
        due_ms = min(now_ms + STOP_MS, max(now_ms, stop.stop_by_ms))
        self._at(self._urgent, due_ms, lambda now: self._shrunk(execution, start, now))

    def _shrunk(self, execution: _Execution, start: Start, now_ms: int) -> None:
        if execution.live and start.part in execution.parts:
            self._resize(execution, start.part, None, now_ms)
            self._report_part(start, "stopped")

    def _report_part(self, start: Start, state: State) -> None:
        self._out.append(
            ReportAttempt(job=start.job, attempt=start.attempt, state=state, part=start.part)
        )

    def _resize(self, execution: _Execution, part: int, start: Start | None, now_ms: int) -> None:
        """The part comes, or goes with `start` None: what is left is done at another speed."""
        now_ms = max(now_ms, execution.since_ms)
        execution.done_ms += (now_ms - execution.since_ms) * self._rate(execution) // 1000
        execution.since_ms = now_ms
        if start is None:
            execution.parts.pop(part, None)
        else:
            execution.parts[part] = start
        if execution.left_ms is not None:
            execution.plan += 1
            plan = execution.plan
            left_ms = max(0, execution.left_ms - execution.done_ms)
            due_ms = now_ms - (-1000 * left_ms // self._rate(execution))
            self._at(self._urgent, due_ms, lambda now: self._complete(execution, plan))

    def _rate(self, execution: _Execution) -> int:
        """Work done in a millisecond, in thousandths of what the first replicas alone do."""
        first = sum(placed[1] for placed in execution.start.nodes)
        more = sum(p[1] for start in execution.parts.values() for p in start.nodes)
        return 1000 * self._speed * (first + more) // first

    def _complete(self, execution: _Execution, plan: int) -> None:
        if execution.plan == plan:
            self._finish(execution, execution.state)

    # --- attempts ---

    def _see(self, job: str, attempt: int) -> None:
        if attempt > self._newest.get(job, 0):
            self._newest.pop(job, None)
            self._newest[job] = attempt
            if len(self._newest) > MAX_SEEN:
                del self._newest[next(iter(self._newest))]

    def _plan(self, execution: _Execution) -> None:
        start = execution.start
        work = self._work_of(start)
        up_ms = start.started_ms + work.startup_ms // self._speed
        self._at(self._patient, up_ms, lambda now: self._running(execution))
        if work.ms is not None:
            left = max(0, work.ms - execution.kept_ms)
            fails = start.attempt <= work.failures
            execution.left_ms = left // 2 if fails else left
            execution.state = "failed" if fails else "finished"
            due_ms = execution.begun_ms + self._elapsed_ms(start, execution.left_ms)
            self._at(self._urgent, due_ms, lambda now: self._complete(execution, 0))
        self._plan_checkpoint(execution)

    def _elapsed_ms(self, start: Start, work_ms: int) -> int:
        """Time that so much work takes, with the checkpoints that fall in it."""
        saves = (work_ms - 1) // (1000 * start.checkpoint_interval_s) if _saves(start) else 0
        return (work_ms + saves * 1000 * start.checkpoint_write_s) // self._speed

    def _plan_checkpoint(self, execution: _Execution) -> None:
        start = execution.start
        if not _saves(start):
            return
        interval_ms, write_ms = 1000 * start.checkpoint_interval_s, 1000 * start.checkpoint_write_s
        done_ms = (execution.saves + 1) * interval_ms
        if execution.left_ms is not None and done_ms >= execution.left_ms:
            return
        taken_ms = execution.begun_ms + (done_ms + execution.saves * write_ms) // self._speed
        safe_ms = taken_ms + write_ms // self._speed
        self._at(self._patient, safe_ms, lambda now: self._checkpoint(execution, taken_ms, done_ms))

    def _stop(self, stop: Stop, now_ms: int) -> None:
        execution = self._executions.get(stop.job)
        if execution is None or execution.start.attempt != stop.attempt or execution.stopping:
            return
        execution.stopping = True
        last_ms = max(now_ms, stop.stop_by_ms)
        write_ms = 1000 * execution.start.checkpoint_write_s
        saves = _saves(execution.start) and now_ms + write_ms < last_ms
        due_ms = min(now_ms + (write_ms if saves else 0) + STOP_MS, last_ms)
        self._at(self._urgent, due_ms, lambda now: self._stopped(execution, now_ms, saves))

    # --- what happens when its time comes ---

    def _running(self, execution: _Execution) -> None:
        if execution.live:
            self._report(execution, "running")

    def _checkpoint(self, execution: _Execution, taken_ms: int, done_ms: int) -> None:
        if not execution.live:
            return
        start = execution.start
        execution.saves += 1
        self._saved_ms[start.job] = execution.kept_ms + done_ms
        self._out.append(ReportCheckpoint(job=start.job, attempt=start.attempt, at_ms=taken_ms))
        self._plan_checkpoint(execution)

    def _stopped(self, execution: _Execution, asked_ms: int, saves: bool) -> None:
        """The last thing that a job does that keeps its work: a checkpoint in its grace period."""
        start = execution.start
        if execution.live and saves and asked_ms > execution.begun_ms:
            spent_ms = (asked_ms - execution.begun_ms) * self._speed
            saved_ms = spent_ms - execution.saves * 1000 * start.checkpoint_write_s
            self._saved_ms[start.job] = execution.kept_ms + max(0, saved_ms)
            report = ReportCheckpoint(job=start.job, attempt=start.attempt, at_ms=asked_ms)
            self._out.append(report)
        self._finish(execution, "stopped")

    def _finish(self, execution: _Execution, state: State) -> None:
        if not execution.live:
            return
        self._end(execution)
        self._report(execution, state)
        if state == "finished":
            self._saved_ms.pop(execution.start.job, None)

    def _report(self, execution: _Execution, state: State) -> None:
        start = execution.start
        self._out.append(
            ReportAttempt(job=start.job, attempt=start.attempt, state=state, nodes=execution.nodes)
        )

    def _end(self, execution: _Execution) -> None:
        execution.live = False
        job = execution.start.job
        self._executions.pop(job, None)
        for placed in execution.start.nodes:
            on_node = self._by_node.get(placed[0])
            if on_node is not None:
                on_node.discard(job)

    # --- time ---

    def _at(
        self,
        heap: list[tuple[int, int, Callable[[int], None]]],
        at_ms: int,
        happen: Callable[[int], None],
    ) -> None:
        self._sequence += 1
        heappush(heap, (at_ms, self._sequence, happen))

    def next_ms(self) -> int | None:
        """When it wants to be called next; None: it waits for instructions only."""
        moments = []
        if self._urgent:
            moments.append(self._urgent[0][0])
        if self._patient:
            moments.append(self._patient[0][0] + self._patience_ms)
        return min(moments) if moments else None

    def advance(self, now_ms: int) -> list[Command]:
        """Let all happen that is due by now; the reports, in order."""
        for heap in (self._patient, self._urgent):
            while heap and heap[0][0] <= now_ms:
                heappop(heap)[2](now_ms)
        out, self._out = self._out, []
        return out


def _saves(start: Start) -> bool:
    return start.checkpoint_interval_s > 0
