"""What ends a command with a message instead of a traceback."""

from __future__ import annotations


class Trouble(Exception):
    """It could not be done."""

    code = 1


class Misuse(Trouble):
    """It was not asked rightly, or there is nothing to ask."""

    code = 2
