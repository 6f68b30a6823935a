"""Why jobs wait: one reason for each shape, told again only when it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from domain import accounting
from domain.facts import ShapeBlocked
from domain.placement import Blocked

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.shapes import Shape
    from domain.turn import Turn


def tell(turn: Turn, shape: Shape, blocked: Blocked) -> None:
    """Emit the reason if it is another one than was told last."""
    if (shape.reason, shape.where) != (blocked.reason, blocked.where):
        turn.emit(ShapeBlocked(shape.id, *blocked))


def apply_blocked(cell: Cell, fact: ShapeBlocked) -> None:
    shape = cell.shapes[fact.shape]
    shape.reason, shape.where = fact.reason, fact.where
    shape.needed_milli, shape.available_milli = fact.needed_milli, fact.available_milli
    accounting.told(cell, shape)
    cell.touch(shape)
