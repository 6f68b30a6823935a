"""What commands print: one JSON object or lines for people on stdout, progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Final, NoReturn, Protocol

import typer

FAILED: Final = 1
"""Exit code: refused, or a check failed."""
USAGE: Final = 2
"""Exit code: the command was not asked rightly."""

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def emit(value: Any, as_json: bool) -> None:
    """Print an answer."""
    if as_json:
        print(json.dumps(value, ensure_ascii=False, sort_keys=False, default=str))
    else:
        for line in _lines(value):
            print(line)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        width = max((len(str(name)) for name in value), default=0)
        for name, part in value.items():
            yield f"{name!s:<{width}}  {_plain(part)}"
    elif isinstance(value, Sequence) and not isinstance(value, str):
        yield from _table([row for row in value if isinstance(row, Mapping)])
    else:
        yield str(value)


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Equal-width columns of the fields that the rows have."""
    if not rows:
        yield "(none)"
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_plain(row.get(name, "")) for name in names] for row in rows]
    widths = [max(len(n), *(len(r[i]) for r in cells)) for i, n in enumerate(names)]
    for line in [names, *cells]:
        yield "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip()


def _plain(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(value)


def note(message: str) -> None:
    """Tell people something that is no part of the answer."""
    print(message, file=sys.stderr, flush=True)


def fail(message: str, code: int = FAILED) -> NoReturn:
    note(f"aquifer: {message}")
    raise typer.Exit(code)


class Progress(Protocol):
    def __call__(self, done: int, total: int) -> None:
        """So much of so much is done."""
        ...


@contextmanager
def progress(what: str) -> Iterator[Progress]:
    """A bar on stderr if that is a terminal, else a line at each tenth."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        told = -1

        def tell(done: int, total: int) -> None:
            nonlocal told
            tenths = 10 * done // total if total else 10
            if tenths > told:
                told = tenths
                note(f"{what}: {10 * tenths} %")

        yield tell
