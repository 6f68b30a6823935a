"""A picture of a run: utilisation and the length of the queue over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from streams.measure import MILLI, Moment

POINTS: Final = 2000
"""More moments than this are thinned out: a line of the picture has no more."""
HOUR_MS: Final = 3_600_000


def draw(timeline: Sequence[Moment], path: Path) -> None:
    """Write the picture; the format follows the file's name. Raises ValueError, OSError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    step = max(1, len(timeline) // POINTS)
    moments = timeline[::step]
    hours = [(m.at_ms - timeline[0].at_ms) / HOUR_MS for m in moments]
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(10, 6))
    above.fill_between(hours, [m.capacity / MILLI for m in moments], color="0.9", step="post")
    above.step(hours, [m.busy / MILLI for m in moments], where="post", color="tab:blue")
    above.set_ylabel("slots: in use, and all")
    below.step(hours, [m.waiting for m in moments], where="post", color="tab:red")
    below.set_ylabel("jobs waiting")
    below.set_xlabel("hours")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def draw_beside(recorded: Sequence[Moment], supposed: Sequence[Moment], path: Path) -> None:
    """Two histories in one picture. Raises ValueError, OSError."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    begin_ms = min(line[0].at_ms for line in (recorded, supposed))
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(10, 6))
    for label, line, colour in (("recorded", recorded, "0.4"), ("what if", supposed, "tab:blue")):
        moments = line[:: max(1, len(line) // POINTS)]
        hours = [(m.at_ms - begin_ms) / HOUR_MS for m in moments]
        slots = [m.busy / MILLI for m in moments]
        above.step(hours, slots, where="post", color=colour, label=label)
        below.step(hours, [m.waiting for m in moments], where="post", color=colour, label=label)
    above.set_ylabel("slots in use")
    below.set_ylabel("jobs waiting")
    below.set_xlabel("hours")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
