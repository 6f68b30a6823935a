"""`python -m tests.faults.planted BUG …`: the product's command line with a bug planted in it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from aquifer.__main__ import main
from domain.ledger import ENGINE
from streams.kafka import KafkaAccepted


def stale_read() -> Any:
    """Answers are kept without regard to the round that they were made of, or asked for."""
    from projections.cache import key_of

    def roundless(cell: str, hash_: str, whose: str, path: str, asked: str) -> str:
        return key_of(cell, whose, path)

    return patch("projections.reading.key_of", roundless)


def lost_write() -> Any:
    """Intake takes one command in five for stored that is not."""
    put = KafkaAccepted.put
    seen = 0

    async def forgetful(self: KafkaAccepted, accepted: Any) -> None:
        nonlocal seen
        kept = []
        for one in accepted:
            seen += 1
            if seen % 5:
                kept.append(one)
        await put(self, kept)

    return patch.object(KafkaAccepted, "put", forgetful)


@contextmanager
def engine_before() -> Iterator[None]:
    """No bug: a process of the version before, as far as ledgers show it."""
    with ExitStack() as stack:
        for name in ("domain.ledger", "domain.evolve", "streams.replay", "streams.rounds"):
            stack.enter_context(patch(f"{name}.ENGINE", ENGINE - 1))
        yield


BUGS: Final[dict[str, Callable[[], Any]]] = {
    "stale_read": stale_read,
    "lost_write": lost_write,
    "engine_before": engine_before,
}


if __name__ == "__main__":
    bug = BUGS[sys.argv.pop(1)]
    with bug():
        main()
