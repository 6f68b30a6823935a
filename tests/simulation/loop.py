"""An event loop on virtual time, and processes in it that can be killed and stopped at any await.

The loop runs one callback at a time. Which process goes next is the seed's choice; within a process
callbacks keep their order, as asyncio promises. Time stands still while anything can run.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any

START_MS = 1_735_689_600_000


class Process:
    """What is killed, stopped and continued as one. Its memory is what its tasks refer to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.role = name.partition("-")[0]
        self.ready: deque[asyncio.Handle] = deque()
        self.alive = True
        self.paused = False

    def __repr__(self) -> str:
        return self.name


PROCESS: contextvars.ContextVar[Process] = contextvars.ContextVar("process")


class VirtualLoop(asyncio.AbstractEventLoop):
    def __init__(self, seed: int) -> None:
        self.outside = Process("outside")
        """The network and the disks: what happens there belongs to no process."""
        self.nowhere = contextvars.Context()
        self.nowhere.run(PROCESS.set, self.outside)
        self.after_step: Callable[[Process], None] = lambda process: None
        self.handled = 0
        self._random = random.Random(seed)
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Process]] = []
        self._sequence = 0
        self._runnable: list[Process] = []
        self._hooks = sys.get_asyncgen_hooks()
        self._tasks: list[asyncio.Task[Any]] = []

    # --- processes --------------------------------------------------------------------------------

    def spawn(self, process: Process, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        context = contextvars.Context()
        context.run(PROCESS.set, process)
        return self.create_task(work, context=context)

    def kill(self, process: Process) -> None:
        """Nothing of it runs any more, no handler and no `finally`."""
        process.alive = False
        process.ready.clear()
        if process in self._runnable:
            self._runnable.remove(process)

    def pause(self, process: Process) -> None:
        process.paused = True
        if process in self._runnable:
            self._runnable.remove(process)

    def resume(self, process: Process) -> None:
        process.paused = False
        if process.alive and process.ready:
            self._runnable.append(process)

    def _enqueue(self, process: Process, handle: asyncio.Handle) -> None:
        if process.alive:
            process.ready.append(handle)
            if len(process.ready) == 1 and not process.paused:
                self._runnable.append(process)

    # --- running ----------------------------------------------------------------------------------

    def __enter__(self) -> VirtualLoop:
        asyncio._set_running_loop(self)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._close_generator)
        return self

    def __exit__(self, *_: object) -> None:
        """Put an end to all that is still suspended, with its `finally` clauses, out of sight."""
        for process in self._runnable:
            process.alive = False
        sys.set_asyncgen_hooks(*self._hooks)
        for task in self._tasks:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            if not task.done():
                with suppress(BaseException):
                    task.get_coro().close()
        self._timers.clear()
        asyncio._set_running_loop(None)

    def _close_generator(self, generator: Any) -> None:
        self.create_task(generator.aclose())

    def run_until(self, until: float) -> None:
        """Let all happen up to a moment."""
        while True:
            while self._runnable:
                self._step()
            timers = self._timers
            while timers and (timers[0][2].cancelled() or not timers[0][3].alive):
                heappop(timers)
            if not timers or timers[0][0] > until:
                self._now = max(self._now, until)
                return
            when, _, handle, process = heappop(timers)
            self._now = max(self._now, when)
            self._enqueue(process, handle)

    def _step(self) -> None:
        runnable = self._runnable
        n = len(runnable)
        process = runnable[0] if n == 1 else runnable[int(self._random.random() * n)]
        handle = process.ready.popleft()
        if not process.ready:
            runnable.remove(process)
        if handle.cancelled():
            return
        self.handled += 1
        handle._run()
        if process is not self.outside:
            self.after_step(process)

    # --- what asyncio asks of a loop --------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._enqueue(self._owner(handle), handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._sequence += 1
        heappush(self._timers, (when, self._sequence, handle, self._owner(handle)))
        return handle

    def _owner(self, handle: asyncio.Handle) -> Process:
        context: contextvars.Context = handle._context  # type: ignore[attr-defined]
        return context.get(PROCESS, self.outside)

    def outside_at(self, when: float, callback: Any, *args: Any) -> None:
        """Something happens in the world, whatever becomes of the process that began it."""
        self.call_at(when, callback, *args, context=self.nowhere)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def time(self) -> float:
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: Any = None, context: Any = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name="", context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """A thread of the process: its work is done a little later, unless it is killed first."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:
                future.set_exception(error)

        self.call_later(self._random.random() * 0.002, work)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Violation):
            raise error


class Violation(AssertionError):
    """Something happened that must never happen."""


class VirtualTime:
    """Stands in for the module `time` where the product measures spans."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()


class Clock:
    """A process's own clock, which may be stepped."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.offset_ms = 0

    def now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000) + self.offset_ms
