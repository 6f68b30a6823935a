"""What tiers promise, as it stands: rows of pledges, and the view of them as of a round."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from domain.promises import SLOT_S, Pledge
from domain.specs import TIERS
from projections.store import Fields

Values = dict[str, Any]


def pledge(entity: Pledge) -> Values:
    return {
        "from_ms": entity.from_ms,
        "since_ms": entity.since_ms,
        "due": list(entity.due),
        "delivered": list(entity.delivered),
        "due_rate": list(entity.duing),
        "delivered_rate": list(entity.delivering),
        "starts": list(entity.starts),
        "late": list(entity.late),
    }


def standing(row: Fields, at_ms: int) -> Iterator[Values]:
    """By tier to which something is or was due in the window: slot-seconds until a moment."""
    elapsed = at_ms - row["since_ms"]
    for rank, tier in enumerate(TIERS):
        due = row["due"][rank] + row["due_rate"][rank] * elapsed
        delivered = row["delivered"][rank] + row["delivered_rate"][rank] * elapsed
        if due or row["due_rate"][rank]:
            yield {
                "account": row["account"],
                "accelerator": row["accelerator"],
                "tier": tier.value,
                "from_ms": row["from_ms"],
                "due_slot_s": due // SLOT_S,
                "delivered_slot_s": delivered // SLOT_S,
                "slack_slot_s": (delivered - due) // SLOT_S,
                "starts": row["starts"][rank],
                "late": row["late"][rank],
            }
