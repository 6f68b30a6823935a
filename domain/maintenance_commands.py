"""Commands that plan the absence of nodes, and the rule of all windows."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from domain.specs import MAX_MS, Every, Millis, Model, Name, Seconds, Text


def check_window(start_ms: int, end_ms: int, every_s: int | None) -> None:
    """Raises ValueError if the window is empty, or reaches into the next one."""
    if end_ms <= start_ms:
        raise ValueError("end_ms must be after start_ms")
    if every_s is not None and 1000 * every_s < end_ms - start_ms:
        raise ValueError("every_s must not be shorter than the window")


class PlanMaintenance(Model):
    """The nodes do no work from `start_ms` until `end_ms`."""

    type: Literal["PlanMaintenance"] = "PlanMaintenance"
    maintenance: Name
    nodes: Annotated[tuple[Name, ...], Field(min_length=1, max_length=1024)]
    start_ms: Millis
    end_ms: Millis
    every_s: Every | None = None
    until_ms: Millis = MAX_MS
    lead_s: Seconds = 600
    """They are drained so long before each window."""
    reason: Text = ""

    @model_validator(mode="after")
    def _window_is_not_empty(self) -> Self:
        check_window(self.start_ms, self.end_ms, self.every_s)
        return self


class CancelMaintenance(Model):
    type: Literal["CancelMaintenance"] = "CancelMaintenance"
    maintenance: Name
    reason: Text = ""
