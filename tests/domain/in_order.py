"""Who may be preempted, found among all jobs: beside what the cell keeps in order."""

from __future__ import annotations

from domain.cell import Cell
from domain.preemption.preemptible import stands
from domain.runs import UNORDERED, Run


def loses_from(run: Run) -> int:
    """Less the time now it is what the attempt loses for each of its slots, in milliseconds."""
    if run.part:
        return -(1 << 62)
    return 1000 * run.job.shape.spec.runtime.restore_s - max(run.running_ms, run.checkpoint_ms)


def expected(cell: Cell) -> dict[tuple[str, int], list[Run]]:
    """By type and tier, in order."""
    runs = [r for j in cell.jobs.values() for r in (j.run, *j.parts.values()) if r is not None]
    found: dict[tuple[str, int], list[Run]] = {}
    for run in sorted(runs, key=lambda r: (loses_from(r), -r.job.number, -r.part)):
        free = run.started_ms and run.reservation is None
        if free and (run.job.shape.spec.preemptible or run.part):
            found.setdefault((run.accelerator, run.tier), []).append(run)
    return found


def may_be_preempted_in_order(cell: Cell) -> None:
    found = expected(cell)
    kept = {key: known for key, known in cell.preemptible.items() if known}
    assert kept.keys() == found.keys()
    for key, known in kept.items():
        runs = [r for r in found[key] if r.running_ms]
        old = [r for r in runs if r not in known.young]
        assert [e[3] for e in reversed(known.ordered.entries) if stands(e)] == old
        assert {r for r in old if r.place == UNORDERED} == set()
        assert known.old.keys() == set(old)
        for ordered in (known.ordered, *known.by_account.values()):
            gaps = sum(not stands(e) for e in ordered.entries)
            assert ordered.gaps == gaps <= len(ordered.entries) // 2
        assert known.starting.keys() == set(found[key]).difference(runs)
        owners = {r: r.job.shape.queue.account for r in found[key]}
        for account in owners.values():
            held = sum(r.size for r in found[key] if owners[r] is account)
            assert held == known.held.get(account, 0)
            own = known.by_account[account].entries if account in known.by_account else []
            standing = [e[3] for e in reversed(own) if stands(e)]
            assert standing == [r for r in old if owners[r] is account]
        assert known.held.keys() | known.by_account.keys() <= set(owners.values())
        began = sorted(r.running_ms for r in runs)
        for at_ms in (0, *began):
            after = next((ms for ms in began if ms > at_ms), None)
            assert known.began_after(at_ms) == after
    for demand in cell.demands.values():
        assert demand.strongest == min(s.tier for s in demand.shapes.values())
