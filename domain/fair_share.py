"""Fair order: dominant share over accelerator types, by weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain.quota import MILLI

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.quota import Queue
    from domain.shapes import Shape

PPM = 1_000_000


def share_ppm(cell: Cell, queue: Queue, accelerator: str, more: int) -> int:
    """The queue's dominant share with `more` (thousandths of slots) of a type, over its weight.

    Dominant share (Ghodsi et al., NSDI'11): the largest, over types, of use / capacity. A weight of
    1000 is neutral; account and queue weights multiply.
    """
    largest = 0
    for type_, used in queue.usage.items():
        if type_ == accelerator:
            continue
        total = cell.total.get(type_, 0)
        if used and total:
            largest = max(largest, used * PPM // (total * MILLI))
    total = cell.total.get(accelerator, 0)
    if total:
        used = queue.usage.get(accelerator, 0) + more
        largest = max(largest, used * PPM // (total * MILLI))
    return largest * 1_000_000 // (queue.weight * queue.account.weight)


def order_share(cell: Cell, shape: Shape) -> int:
    """The share that the shape's queue would have with one more job of it."""
    share = share_ppm(cell, shape.queue, shape.needs[0].accelerator, shape.size)
    by_ppm = shape.ruling.share_ppm
    return share if by_ppm == PPM else share * by_ppm // PPM
