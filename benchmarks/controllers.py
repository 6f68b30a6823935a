"""Two controllers that chase each other: refused as they are, at rest once they are damped.

Each raises a ceiling of its own when few slots are in use and lowers it when many are, and each
sees what the other one did. The cell here is a toy whose utilisation follows the two ceilings a
minute later, which is the worst case; the controllers and the check are the real ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Final

from domain.policies import controllers, validation
from domain.policies.attributes import Phase
from domain.policies.documents import Controller, Effect, Parameter, PolicyDocument, Rule
from domain.policies.state import Move

STEP: Final = 200
EVERY_S: Final = 300
HOURS: Final = 6


def documents(damped: bool) -> list[PolicyDocument]:
    """Two policies; each moves what the other one watches."""
    return [_policy("one", damped), _policy("other", damped)]


def _policy(name: str, damped: bool) -> PolicyDocument:
    rule = Rule(rule="room", phase=Phase.GUARD, then=Effect(do="ceiling", value="param.room"))
    controller = Controller.model_validate(
        {
            "controller": name,
            "param": "room",
            "watch": "signal.utilisation",
            "low": 480_000,
            "high": 520_000,
            "step": STEP,
            "raise_when": "low",
            "every_s": EVERY_S,
            "damped": damped,
        }
    )
    param = Parameter(param="room", value=250, min=0, max=1000, unit="slots")
    return PolicyDocument(
        policy=name, version=1, params=(param,), rules=(rule,), controllers=(controller,)
    )


def refusal(damped: bool) -> list[str] | None:
    """The loop for which the two are refused together."""
    return controllers.undamped_loop((d, validation.trees_of(d)) for d in documents(damped))


def run(damped: bool) -> tuple[list[tuple[float, int]], list[int]]:
    """(hour, slots in use) minute by minute, and the minutes of all moves."""
    found = documents(damped)
    values = {d.policy: d.params[0].value for d in found}
    last: dict[str, Move] = {}
    line, moves = [], []
    for minute in range(HOURS * 60):
        use = min(1000, sum(values.values()) // 2 + 200)
        line.append((minute / 60, use))
        for document in found:
            (spec,), (param,) = document.controllers, document.params
            watched = use * 1000
            if spec.low < watched < spec.high:
                continue
            move = controllers.next_move(
                spec, last.get(document.policy), watched <= spec.low, minute * 60_000
            )
            if move is not None:
                new = controllers.stepped(param, values[document.policy], move)
                if new != values[document.policy]:
                    values[document.policy] = new
                    last[document.policy] = move
                    moves.append(minute)
    return line, moves


def draw(path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panes = pyplot.subplots(2, 1, figsize=(9, 5), sharex=True, sharey=True)
    for pane, damped in zip(panes, (False, True), strict=True):
        line, moves = run(damped)
        pane.step([x for x, _ in line], [y for _, y in line], where="post", lw=1)
        said = "damped: allowed" if damped else "undamped: refused"
        pane.set_title(f"{said}; {len(moves)} moves, the last in minute {moves[-1]}")
        pane.set_ylabel("slots in use")
    panes[-1].set_xlabel("hours")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="benchmarks controllers", description=__doc__)
    parser.add_argument("--plot", type=Path, help="Draw both into this file.")
    args = parser.parse_args(argv)
    if args.plot is not None:
        draw(args.plot)
    result: dict[str, Any] = {}
    for name, damped in (("undamped", False), ("damped", True)):
        line, moves = run(damped)
        late = [use for hour, use in line if hour >= HOURS / 2]
        result[name] = {
            "refused_for": refusal(damped),
            "moves": len(moves),
            "last_move_minute": moves[-1],
            "swing_in_the_second_half": max(late) - min(late),
        }
    return result
