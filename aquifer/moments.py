"""Moments of a ledger's history, as a caller names them: a round's number, or a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from aquifer.errors import Misuse

if TYPE_CHECKING:
    from domain.ledger import Header


class Moment(Struct, frozen=True):
    """A point in a ledger's history: the last round up to a number, or up to a time."""

    round: int | None = None
    at_ms: int | None = None

    def is_before(self, header: Header) -> bool:
        """True iff the round of this header comes after the moment."""
        late = self.at_ms is not None and header.now_ms > self.at_ms
        return late or (self.round is not None and header.round > self.round)

    def begins_with(self, header: Header) -> bool:
        """True iff the round of this header is the named one or later, or not before the time."""
        early = self.at_ms is not None and header.now_ms < self.at_ms
        return not early and (self.round is None or header.round >= self.round)


NOW: Final = Moment()


def moment_of(text: str, option: str) -> Moment:
    """Raises Misuse, which names the option."""
    from streams.envelope import parse_time_ms

    if text.isdecimal():
        return Moment(round=int(text))
    try:
        return Moment(at_ms=parse_time_ms(text))
    except ValueError as error:
        raise Misuse(f"{option}: {text!r} {error}") from error
