"""The cell of `benchmarks decide` with all that the scheduler knows of in use at once."""

from __future__ import annotations

from typing import Any, Final

from benchmarks.decide import QUEUES, Bench
from domain.commands import RegisterNode
from domain.ledger import Accepted
from domain.specs import FabricPath

DIVISIONS: Final = 10
OLD: Final = 10
"""One node in so many is of the older type, second choice for some jobs."""
HOUR_MS: Final = 3_600_000
KINDS: Final[tuple[dict[str, Any], ...]] = (
    {"groups": [{"count": 8, "slots": 8, "slices": [{"size": 4, "level": "rack"}]}]},
    {"groups": [{"count": 4, "slots": 4, "spread": {"level": "rack", "max_replicas": 2}}]},
    {"groups": [{"slots": 8, "grow_to": 4}]},
    {"groups": [{"share_milli": 250}]},
    {"groups": [{"slots": 2, "host_cpu_milli": 16_000, "host_memory_mib": 65_536}]},
    {"groups": [{"count": 64, "slots": 8}], "placement": {"required_level": "block"}},
    {
        "groups": [{"slots": 4}],
        "placement": {"prefer": [{"label": "room", "values": ["0", "1"], "weight": 5}]},
    },
    {
        "groups": [{"slots": 2}],
        "flavours": [{"accelerator": "h100"}, {"accelerator": "a100", "after_wait_s": 900}],
    },
    {
        "groups": [{"slots": 8}],
        "placement": {"affinity": [{"key": "serving", "level": "rack", "mode": "apart"}]},
    },
    {"groups": [{"slots": 8}], "preemptible": False},
)
"""One shape in five is of one of these kinds; the others ask for whole slots."""


class Everything(Bench):
    def _body(self, number: int) -> dict[str, Any]:
        body = super()._body(number)
        if number % 5 == 4:
            body |= KINDS[number // 5 % len(KINDS)]
        if number % 3 == 0:
            runtime = {"estimate_s": 600 + self.random.randrange(20_000), "restore_s": 30}
            body["runtime"] = {**body["runtime"], **runtime}
        return body

    def submit(self) -> Accepted:
        self.jobs += 1
        body = {"job": f"job-{self.jobs}", **self.bodies[self._pick()]}
        if self.jobs % 20 == 0 and "estimate_s" in body["runtime"]:
            late_ms = self.now_ms + self.random.randrange(48) * HOUR_MS
            body["deadline"] = {"finish_by_ms": late_ms + 30_000_000}
        return self.accept("SubmitJob", body)

    def first_commands(self) -> list[Accepted]:
        """Divisions and teams that borrow and lend, some queues strict; all policies in use."""
        policy = {
            "order": "least_remaining",
            "gathering": True,
            "gather_after_s": [0, 0, 1, 1],
            "min_run_s": [0, 1, 1, 1],
            "queue_delay_s": [0, 1, 1, 10],
        }
        setup = [self.accept("SetPolicy", {"parameters": policy})]
        setup.append(self.accept("SetQuota", {"account": "org"}))
        for d in range(DIVISIONS):
            setup.append(self.accept("SetQuota", {"account": f"d{d}", "parent": "org"}))
        share = self.nodes * 8 // QUEUES
        for n in range(QUEUES):
            new, old = share * (OLD - 1) // OLD, share // OLD
            quotas: list[dict[str, Any]] = [
                {"accelerator": "h100", "nominal": new, "borrowing_limit": 2 * new},
                {"accelerator": "a100", "nominal": old, "lending_limit": old // 2},
            ]
            queue = {"queue": f"q{n}", "weight": 1000 + n, "order": "strict" if n == 7 else "skip"}
            body = {"account": f"a{n}", "parent": f"d{n % DIVISIONS}", "quotas": quotas}
            setup.append(self.accept("SetQuota", {**body, "queues": [queue]}))
        return setup

    def node(self, n: int) -> Accepted:
        node = RegisterNode(
            node=f"n{n:06}",
            accelerator="a100" if n % OLD == 0 else "h100",
            slots=8,
            host_cpu_milli=128_000,
            host_memory_mib=1 << 20,
            path=FabricPath(
                region="r", cluster="c", block=f"b{n // 128:04}", rack=f"k{n // 16:05}"
            ),
            labels={"room": str(n // 1024)},
            lease_s=86_400,
        )
        return self.accept("RegisterNode", node.model_dump(mode="json", exclude_defaults=True))

    def add_nodes(self) -> None:
        super().add_nodes()
        windows = []
        for r in range(2 * DIVISIONS):
            start_ms = self.now_ms + 1000 + r * 2000
            body = {
                "reservation": f"window-{r}",
                "account": f"a{r}",
                "accelerator": "h100",
                "count": 16,
                "slots": 8,
                "start_ms": start_ms,
                "end_ms": start_ms + HOUR_MS,
                "queues": [f"q{r}"],
            }
            windows.append(self.accept("RequestReservation", body))
        self.round(windows, 0)
