"""Refusals: the decider's answer to a command that it does not obey."""

from __future__ import annotations


class Refused(Exception):
    """Raised by a command's decide function before it emits any fact.

    `code` is stable and machine-readable, `field` is the command's field that breaks the rule, and
    `message` states the rule.
    """

    def __init__(self, code: str, field: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.field = field
        self.message = message
