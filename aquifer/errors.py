"""What ends a command with a message instead of a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


def rules_of(error: ValidationError, whole: str = "") -> list[str]:
    """Each field with the rule that it breaks, never its value; `whole` names what has no field."""
    return [
        f"{'.'.join(map(str, e['loc'])) or whole}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False)
    ]


class Trouble(Exception):
    """It could not be done."""

    code = 1


class Misuse(Trouble):
    """It was not asked rightly, or there is nothing to ask."""

    code = 2
