"""Rows: what rules read of shapes, jobs, node classes, accounts, reservations and peers."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from domain.policies.compiler import Names
from domain.specs import MAX_S

if TYPE_CHECKING:
    from domain.commands import RequestReservation, SubmitJob
    from domain.fabric import NodeClass
    from domain.pool.state import Peer
    from domain.quota import Account, Queue

Ints = tuple[int, ...]


def drawn(name: str) -> int:
    """A number of 0 to 999,999 that a name always gets."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest) % 1_000_000


def lineage(account: Account | None) -> tuple[str, ...]:
    """The account and all above it."""
    found = []
    while account is not None:
        found.append(account.id)
        account = account.parent
    return tuple(found)


def of_spec(names: Names, spec: SubmitJob, queue: Queue) -> Ints:
    """The part of a job's row that its shape says; its order is that of the attributes."""
    group, runtime = spec.groups[0], spec.runtime
    return (
        names.of(queue.id),
        names.of(queue.account.id),
        names.of(lineage(queue.account)),
        names.of(str(spec.tier)),
        spec.priority,
        sum(g.count * g.slots for g in spec.groups),
        sum(g.count for g in spec.groups),
        group.slots,
        group.share_milli,
        names.of(tuple(f.accelerator for f in spec.flavours)),
        int(spec.preemptible),
        int(group.grow_to is not None),
        names.of(spec.reservation or ""),
        names.of(str(spec.placement.required_level)),
        runtime.max_s or 0,
        runtime.checkpoint_interval_s,
        runtime.grace_s,
        spec.max_restarts,
        spec.locality.max_hops,
        names.of(spec.locality.regions),
        drawn(queue.id),
    )


def of_submission(names: Names, own: dict[str, Any], estimate: int | None, now_ms: int) -> Ints:
    """The part of a job's row that is its own; `own` are the fields that no shape has."""
    due_ms = (own.get("deadline") or {}).get("finish_by_ms", 0)
    return (
        names.of(own["job"]),
        names.of(tuple(sorted(own.get("labels", {}).items()))),
        estimate or 0,
        int(due_ms > 0),
        min(MAX_S, max(0, due_ms - now_ms) // 1000),
    )


def of_class(names: Names, class_: NodeClass) -> Ints:
    return (
        names.of(class_.accelerator),
        class_.slots,
        names.of(class_.labels["region"]),
        names.of(class_.labels["cluster"]),
        names.of(tuple(sorted(class_.labels.items()))),
    )


def of_account(names: Names, account: Account, accelerator: str) -> Ints:
    return (
        names.of(account.id),
        names.of(lineage(account)),
        names.of(accelerator),
        max(0, account.nominal.get(accelerator, 0)) // 1000,
        drawn(account.id),
    )


def of_reservation(
    names: Names, command: RequestReservation, account: Account, now_ms: int
) -> Ints:
    return (
        names.of(command.account),
        names.of(lineage(account)),
        names.of(command.accelerator),
        command.count * command.slots,
        (command.end_ms - command.start_ms) // 1000,
        max(0, command.start_ms - now_ms) // 1000,
        drawn(command.account),
    )


def of_peer(names: Names, peer: Peer) -> Ints:
    return (names.of(peer.id), peer.distance_s)
