"""Who holds which slots: attempts take them, give them back, and wait for them as claims."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from domain import promises
from domain.preemption.preemptible import Preemptible
from domain.rules import count_keys
from domain.runs import Run

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.nodes import Node
    from domain.reservations import Reservation


def occupy(cell: Cell, run: Run, waits_for: Iterable[tuple[str, int]]) -> None:
    """Give the run its slots; those in `waits_for` (node, slots) as they become free."""
    run.missing = dict(waits_for)
    reservation = run.reservation
    for id_, slots in run.slots_by_node().items():
        node = cell.nodes[id_]
        if reservation is not None:
            reservation.used[id_] = reservation.used.get(id_, 0) + slots
            node.runs[run] = 0
            continue
        missing = run.missing.get(id_, 0)
        node.runs[run] = slots - missing
        node.used += slots - missing
        if missing:
            node.waiting.append(run)
    take_parts(cell, run, 1)
    count_keys(cell, run, 1)
    for id_ in dict.fromkeys(placed[0] for placed in run.nodes):
        cell.used_node(cell.nodes[id_])
    if reservation is None:
        charge(cell, run, run.size)
    else:
        cell.touch(reservation)
    cell.touch(run.job)


def vacate(cell: Cell, run: Run) -> None:
    """Take from the run all that it held or waited for."""
    cell.claims.pop(run, None)
    cell.elastic.pop(run, None)
    reservation = run.reservation
    take_parts(cell, run, -1)
    count_keys(cell, run, -1)
    for id_, slots in run.slots_by_node().items():
        node = cell.nodes[id_]
        own = node.runs.pop(run)
        if reservation is not None:
            reservation.used[id_] -= slots
            if not reservation.used[id_]:
                del reservation.used[id_]
        if id_ in run.missing:
            node.waiting.remove(run)
        node.used -= own
        freed(cell, node, own)
    run.missing = {}
    if reservation is None:
        preemptible = cell.preemptible.get((run.accelerator, run.tier))
        if preemptible is not None:
            preemptible.drop(run)
        if run.started_ms and not run.part:
            promises.hold(cell, run, -1)
        charge(cell, run, -run.size)
    else:
        cell.touch(reservation)


def count_started(cell: Cell, run: Run) -> None:
    """The run has all its slots, and has become one that others may preempt."""
    cell.claims.pop(run, None)
    spec = run.job.shape.spec
    if spec.groups[0].grow_to is not None and not run.part:
        cell.elastic[run] = None
    if run.reservation is not None:
        return
    if not run.part:
        promises.hold(cell, run, 1)
    if spec.preemptible or run.part:
        cell.preemptible.setdefault((run.accelerator, run.tier), Preemptible()).add(run)


def moved(cell: Cell, run: Run) -> None:
    """What the attempt would lose counts from another moment."""
    preemptible = cell.preemptible.get((run.accelerator, run.tier))
    if preemptible is not None:
        preemptible.moved(run)


def take_parts(cell: Cell, run: Run, by: int) -> None:
    """Host parts and shares of devices: taken with `by` 1, given back with -1."""
    if run.job.shape.plain:
        return
    groups = run.job.shape.spec.groups
    for id_, replicas, index, device in run.nodes:
        node, group = cell.nodes[id_], groups[index]
        node.free_cpu_milli -= by * replicas * group.host_cpu_milli
        node.free_memory_mib -= by * replicas * group.host_memory_mib
        if device >= 0:
            before = node.partial.get(device, 0)
            after = before + by * replicas * group.share_milli
            node.used += (after > 0) - (before > 0)
            node.partial[device] = after
            if not after:
                del node.partial[device]


def charge(cell: Cell, run: Run, amount: int) -> None:
    queue = run.job.shape.queue
    queue.usage[run.accelerator] = queue.usage.get(run.accelerator, 0) + amount
    queue.account.charge(run.accelerator, amount)
    cell.touch(queue.account)


def recharge(cell: Cell) -> None:
    """The exchange rates are others: charge what all attempts hold anew."""
    for account in cell.accounts.values():
        account.own.clear()
        for budget in account.budgets:
            budget.price(account)
        cell.touch(account)
    for job in cell.jobs.values():
        for run in (job.run, *job.parts.values()):
            if run is not None and run.reservation is None:
                job.shape.queue.account.charge(run.accelerator, run.size)
    cell.rebuild_quota()
    promises.recount(cell)


def freed(cell: Cell, node: Node, freed: int) -> None:
    """Slots of the node became free: claims that wait for them come first."""
    for holder in list(node.waiting) if freed else ():
        got = min(holder.missing[node.id], node.class_.slots - node.used)
        if not got:
            continue
        node.used += got
        holder.missing[node.id] -= got
        if isinstance(holder, Run):
            node.runs[holder] += got
            cell.touch(holder.job)
        else:
            node.held[holder] += got
            cell.touch(holder)
        if not holder.missing[node.id]:
            del holder.missing[node.id]
            node.waiting.remove(holder)
    cell.used_node(node)


def ready_claims(cell: Cell) -> list[Run]:
    """Claims that wait for nothing any more, in the order of their jobs."""
    ready = [run for run in cell.claims if not run.missing and _has_host_parts(cell, run)]
    return sorted(ready, key=lambda r: r.order)


def _has_host_parts(cell: Cell, run: Run) -> bool:
    """False iff others still use host parts that the claim has taken already."""
    if run.job.shape.plain:
        return True
    nodes = (cell.nodes[placed[0]] for placed in run.nodes)
    return all(n.free_cpu_milli >= 0 and n.free_memory_mib >= 0 for n in nodes)


def runs_in(cell: Cell, reservation: Reservation) -> list[Run]:
    """Attempts that use the reservation, in the order of their jobs."""
    runs = {r for id_ in reservation.used for r in cell.nodes[id_].runs}
    return sorted((r for r in runs if r.reservation is reservation), key=lambda r: r.order)
