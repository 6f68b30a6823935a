"""The memory of a process that holds a large cell.

A round touches a little of everything, all over a heap of up to gigabytes. Found by pages of 4 KiB
that takes a quarter of a round's time at a million jobs; with pages of 2 MiB hardly any.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from streams.ending import end

YOUNG_ONLY: Final = (100_000, 10, 100_000)
"""Thresholds of the garbage collector for a process that decides: a look at the whole of a cell's
state would hold up rounds for long."""

EVERY_S: Final = 30
"""How often what the heap has grown by is looked for."""

_HUGE: Final = 2 << 20
_STACK: Final = 8 << 20
"""Of a thread, which uses next to nothing of it: mappings up to this size are left as they are."""
_PIECE: Final = 4 * _HUGE
"""Asked for at once: whoever allocates meanwhile may have to wait for it, some 20 ms."""
_MADV_HUGEPAGE: Final = 14
_MADV_COLLAPSE: Final = 25
"""Since Linux 6.1; before it the kernel comes to it by itself, slowly."""


@asynccontextmanager
async def tended() -> AsyncIterator[None]:
    """For a process that does nothing but hold cells: its garbage collector looks at young objects
    only, and its heap gets huge pages as it grows."""
    gc.set_threshold(*YOUNG_ONLY)
    keeping = asyncio.create_task(_keep())
    try:
        yield
    finally:
        await end([keeping])


async def _keep() -> None:
    while True:
        await asyncio.to_thread(use_huge_pages)
        await asyncio.sleep(EVERY_S)


def use_huge_pages() -> None:
    """Have the kernel put the heap as it is now on huge pages, where it knows and allows them.

    What is there already stays as it is. What is not takes some 2 s for a GiB; other threads run.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for begin, finish in _heap():
        for piece in range(begin, finish, _PIECE):
            size = min(_PIECE, finish - piece)
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                madvise(piece, size, advice)  # it is advice: where it cannot be had, all goes on


def _heap() -> Iterator[tuple[int, int]]:
    """Begin and end of the large mappings that hold objects, by whole huge pages."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        place, rights, _, _, _, *name = line.split()
        if rights == "rw-p" and name in ([], ["[heap]"]):
            begin, finish = (int(address, 16) for address in place.split("-"))
            if finish - begin > _STACK:
                yield -(-begin // _HUGE) * _HUGE, finish // _HUGE * _HUGE
