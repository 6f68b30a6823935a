"""A large heap comes to lie on huge pages, and stays what it is."""

from __future__ import annotations

import asyncio
import gc
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from streams import heap

ALLOWED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
PROGRAM = """
from pathlib import Path
from streams.heap import use_huge_pages

def huge_mib():
    found = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in found if line.startswith("AnonHugePages")) >> 10

objects = [None] * 1_000_000  # a list that grows would leave its old places between the others
for number in range(1_000_000):
    objects[number] = (number, str(number))
before = huge_mib()
for _ in range(2):
    use_huge_pages()
    print(huge_mib() - before)
assert objects == [(number, str(number)) for number in range(1_000_000)]
"""


def test_a_large_heap_comes_to_lie_on_huge_pages() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    once, twice = map(int, ran.stdout.split())
    if not ALLOWED.exists() or "[never]" in ALLOWED.read_text():
        assert once == twice == 0
        return
    assert twice >= once, "what lies there stays there"
    if tuple(map(int, platform.release().split(".")[:2])) >= (6, 1):
        assert once > 64, "most of some 120 MiB; an older kernel takes its time"


def test_a_tended_heap_is_looked_after_until_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[None] = []
    monkeypatch.setattr(heap, "EVERY_S", 0)
    monkeypatch.setattr(heap, "use_huge_pages", lambda: looks.append(None))
    thresholds = gc.get_threshold()
    try:
        asyncio.run(_tend(looks))
    finally:
        gc.set_threshold(*thresholds)


async def _tend(looks: list[None]) -> None:
    async with heap.tended():
        assert gc.get_threshold() == heap.YOUNG_ONLY
        while len(looks) < 3:  # noqa: ASYNC110  of another thread
            await asyncio.sleep(0.01)
    ended = len(looks)
    await asyncio.sleep(0.05)
    assert len(looks) <= ended + 1, "the one that was under way is the last"
