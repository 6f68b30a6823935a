"""Why jobs wait: one reason for each shape, told again only when it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from domain import accounting, promises
from domain.facts import ShapeBlocked
from domain.placement import Blocked

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.shapes import Shape
    from domain.turn import Turn


ALIKE: Final = ("no_capacity", "fragmented", "rules")
"""No room now, of one kind or another: with each job that ends it may be another kind."""
CALM_MS: Final = 10_000
"""Of reasons that are alike, another one is told so long after the last at the earliest."""


def tell(turn: Turn, shape: Shape, blocked: Blocked) -> bool:
    """Emit the reason if it is another one than was told last; False: that is too soon."""
    if (shape.reason, shape.where) == (blocked.reason, blocked.where):
        return True
    alike = shape.reason in ALIKE and blocked.reason in ALIKE
    if alike and turn.header.now_ms < shape.told_ms + CALM_MS:
        return False
    turn.emit(ShapeBlocked(shape.id, *blocked))
    promises.judge(turn, shape, blocked)
    return True


def apply_blocked(cell: Cell, fact: ShapeBlocked) -> None:
    shape = cell.shapes[fact.shape]
    shape.reason, shape.where = fact.reason, fact.where
    shape.needed_milli, shape.available_milli = fact.needed_milli, fact.available_milli
    shape.told_ms = cell.now_ms
    accounting.told(cell, shape)
    cell.touch(shape)
