"""`aquifer subjects`: personal data sealed under a key of its subject, and erased with that key."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aquifer.output import USAGE, JsonFlag, emit, fail

if TYPE_CHECKING:
    from aquifer.settings import Settings
    from streams.subjects import Subjects

Who = Annotated[str, typer.Argument(help="The person, as your organisation names them.")]

app = typer.Typer(help="Personal data in the ledger, sealed and erased.", no_args_is_help=True)


@app.command()
def seal(
    subject: Who,
    text: Annotated[str, typer.Argument(help="What a reason or a label is to say.")],
    as_json: JsonFlag = False,
) -> None:
    """Print the text as ciphertext that a command may hold."""
    with _opened() as subjects:
        try:
            sealed = subjects.seal(subject, text)
        except ValueError as error:
            fail(f"text: {error}", USAGE)
    emit({"sealed": sealed} if as_json else sealed, as_json)


@app.command()
def handle(subject: Who, as_json: JsonFlag = False) -> None:
    """Print the name under which a table of actors or a gateway may know the person."""
    with _opened() as subjects:
        found = subjects.handle(subject)
    emit({"handle": found} if as_json else found, as_json)


@app.command()
def erase(subject: Who, as_json: JsonFlag = False) -> None:
    """Destroy the person's key: what was sealed under it can never be read again."""
    with _opened() as subjects:
        if not subjects.erase(subject):
            fail(f"{subject}: no such subject")
    emit({"erased": subject}, as_json)


@app.command("list")
def list_subjects(as_json: JsonFlag = False) -> None:
    """List all who have a key."""
    with _opened() as subjects:
        found = [
            {"subject": subject, "handle": subjects.handle(subject)}
            for subject in subjects.subjects()
        ]
    emit({"subjects": found} if as_json else found, as_json)


@contextmanager
def _opened() -> Iterator[Subjects]:
    from aquifer.settings import load
    from streams.subjects import Subjects

    settings = load()
    settings.subjects_file.parent.mkdir(parents=True, exist_ok=True)
    subjects = Subjects(settings.subjects_file)
    try:
        yield subjects
    finally:
        subjects.close()


def revealed(settings: Settings, answer: Any) -> Any:
    """The answer as someone may read it who has the subjects' keys; as it is without them."""
    if not settings.subjects_file.exists():
        return answer
    with _opened() as subjects:
        return subjects.revealed(answer)
