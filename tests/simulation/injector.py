"""The injector: it makes happen what the plan of a schedule says."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, cast

from tests.simulation.broker import Mode
from tests.simulation.cluster import CELL
from tests.simulation.disk import Snapshots
from tests.simulation.faults import Fault
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

SLOW_S: Final = 6.0
"""Longest latency of a process for which everything takes long."""
ZOMBIE_S: Final = 8.0
"""A zombie goes on for so long before it is killed."""


class Injector:
    def __init__(self, world: World) -> None:
        self._world = world
        self.happened: Counter[str] = Counter()
        self.steps: Counter[str] = Counter()
        """Times that each role came to an await."""
        self._by_step: dict[tuple[str, int], Fault] = {}
        self._zombies: list[Process] = []
        world.broker.happened = self.happen

    def happen(self, kind: str) -> None:
        self.happened[kind] += 1

    def plan(self) -> None:
        for fault in self._world.planned:
            match fault.kind:
                case "crash" | "pause" | "zombie":
                    self._by_step[fault.who, fault.n] = fault
                case "write":
                    mode = cast(Mode, fault.how)
                    self._world.broker.modes[f"{fault.who}.{CELL}", fault.n] = mode
                case "snapshot":
                    for snapshots in self._all_snapshots():
                        snapshots.damage[fault.n] = fault.how
                        snapshots.happened = self.happen
                case "gaps":
                    self.happen("gaps")
                    self._world.partition["ledger"].gaps = True
                case "outage":
                    self.happen("outage")
                case "poison" | "command":
                    pass
                case _:
                    self._world.loop.outside_at(fault.at_s, self._strike, fault)

    def _all_snapshots(self) -> list[Snapshots]:
        return [self._world.snapshots, *self._world.projector_snapshots.values()]

    def _names(self, role: str) -> list[str]:
        return [n for n in self._world.processes if n.partition("-")[0] == role]

    def _strike(self, fault: Fault) -> None:
        """A fault whose time has come."""
        now = self._world.loop.time()
        self.happen(fault.kind)
        match fault.kind:
            case "broker":
                self._world.broker.crash(fault.for_s)
            case "hide":
                for snapshots in self._all_snapshots():
                    snapshots.hidden.update(k[0] for k in snapshots.saved[-fault.n :])
            case "standby" if not self._world.embedded:
                self._world.start("standby", self._world.decide)
                self._world.loop.outside_at(now + fault.for_s, self._world.kill, "standby")
            case "stranger":
                self._stranger(fault.how)
            case "drop":
                self._drop_read_model()
        for name in self._names(fault.who):
            match fault.kind:
                case "cut":
                    self._world.broker.cut[name] = max(
                        self._world.broker.cut.get(name, 0.0), now + fault.for_s
                    )
                    self._world.broker.silent(self._world.processes[name])
                case "slow":
                    self._world.broker.slow[name] = 6.0
                    self._world.loop.outside_at(
                        now + fault.for_s, self._world.broker.slow.pop, name, None
                    )
                case "disk":
                    self._fill_disk(name, True)
                    self._world.loop.outside_at(now + fault.for_s, self._fill_disk, name, False)
                case "clock":
                    self._world.clock(name).offset_ms += fault.n

    def _fill_disk(self, name: str, full: bool) -> None:
        self._world.disk(name).full = full
        topics = {"intake": ("accepted", "dead"), "dispatch": ("dispatch",), "client": ("cmd",)}
        for topic in topics.get(name.partition("-")[0], ()):
            (self._world.broker.full.add if full else self._world.broker.full.discard)(
                f"{topic}.{CELL}"
            )

    def _drop_read_model(self) -> None:
        """All tables are dropped: they are projected anew."""
        for name, store in self._world.stores.items():
            self._world.kill(name)
            store.drop(CELL)
            self._world.applied[name] = 0
            self._world.start(name, self._world.project)

    def _stranger(self, how: str) -> None:
        """Somebody writes into the ledger what must not be believed."""
        ledger = self._world.partition["ledger"]
        last = self._world.chain.records[-1] if self._world.chain.records else b"{}"
        head = f'"{self._world.chain.head.hash}"'.encode()
        made = {
            "garbage": b"\x00garbage",
            "unsigned": last[: last.rindex(b'"sig"')] + b'"sig":"00"}' if b'"sig"' in last else b"",
            "repeated": last,
            "fork": last.replace(head, b'"' + b"1" * 64 + b'"'),
        }
        self._world.broker.store(ledger, None, made[how])

    def after_step(self, process: Process) -> None:
        """The process has come to an await."""
        role = process.role
        step = self.steps[role] = self.steps[role] + 1
        if (role, step) in self._by_step and not self._world.healed:
            self._interrupt(process, self._by_step[role, step])

    def _interrupt(self, process: Process, fault: Fault) -> None:
        """It is killed or stopped where it is."""
        self.happen(fault.kind)
        world, role = self._world, self._world.roles().get(process.name)
        until = world.loop.time() + fault.for_s
        if fault.kind == "crash":
            world.end(process)
            if role is not None:
                world.loop.outside_at(until, world.start, process.name, role)
            return
        world.loop.pause(process)
        world.broker.silent(process)
        world.loop.outside_at(until, world.loop.resume, process)
        current = world.processes.get(process.name) is process and not world.embedded
        if fault.kind == "zombie" and role is not None and current:
            self._zombies.append(process)
            del world.processes[process.name]
            world.start(process.name, role)
            world.loop.outside_at(until + ZOMBIE_S, world.end, process)

    def heal(self) -> None:
        """Nothing fails any more."""
        broker = self._world.broker
        broker.cut.clear()
        broker.slow.clear()
        broker.full.clear()
        broker.modes.clear()
        broker.down_until = self._world.loop.time()
        for disk in self._world.disks.values():
            disk.full = False
        for clock in self._world.clocks.values():
            clock.offset_ms = 0
        if "standby" in self._world.processes:
            self._world.kill("standby")
        for zombie in self._zombies:
            self._world.end(zombie)
