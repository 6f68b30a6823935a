"""What tiers owe, counted naively: job by job, round by round."""

from __future__ import annotations

from domain import facts as f
from domain.cell import Cell
from domain.ledger import Round
from domain.specs import TIERS

PPM = 1_000_000
Key = tuple[str, str, int]
"""Account, accelerator type, rank of the tier."""


class Owed:
    def __init__(self) -> None:
        self.at_ms = 0
        self.rates: dict[Key, tuple[int, int]] = {}
        self.sums: dict[Key, tuple[int, int]] = {}

    def follow(self, cell: Cell, round: Round) -> None:
        now_ms = round.header.now_ms
        closed = [x for x in round.facts if isinstance(x, f.SlaWindowClosed)]
        for fact in closed:
            key = (fact.account, fact.accelerator, fact.tier)
            assert fact.from_ms < fact.to_ms <= now_ms
            due, delivered = self._until(key, fact.to_ms)
            assert fact.due_slot_s == due // (PPM * 1_000_000)
            assert fact.delivered_slot_s == delivered // (PPM * 1_000_000)
            assert fact.met == (delivered >= due)
            assert 0 <= fact.late <= fact.starts
        ends = {(c.account, c.accelerator): c.to_ms for c in closed}
        told = {(c.account, c.accelerator, c.tier) for c in closed}
        for key in self.rates.keys() | self.sums.keys():
            since_ms = ends.get(key[:2], self.at_ms) if key in told else self.at_ms
            due, delivered = (0, 0) if key in told else self.sums.get(key, (0, 0))
            rate = self.rates.get(key, (0, 0))
            elapsed = now_ms - since_ms
            self.sums[key] = (due + rate[0] * elapsed, delivered + rate[1] * elapsed)
        self.at_ms = now_ms
        self.rates = rates_of(cell)

    def _until(self, key: Key, at_ms: int) -> tuple[int, int]:
        due, delivered = self.sums.get(key, (0, 0))
        rate = self.rates.get(key, (0, 0))
        elapsed = at_ms - self.at_ms
        return due + rate[0] * elapsed, delivered + rate[1] * elapsed

    def check(self, cell: Cell) -> None:
        for one in cell.pledges.values():
            for tier in range(len(TIERS)):
                due, delivered = self.sums.get((*one.id, tier), (0, 0))
                key = (*one.id, tier)
                assert one.slack(tier, cell.now_ms) == delivered - due, key


def rates_of(cell: Cell) -> dict[Key, tuple[int, int]]:
    """What is due and delivered each millisecond, from the jobs themselves."""
    held: dict[Key, int] = {}
    waiting: dict[Key, int] = {}
    for job in cell.jobs.values():
        shape, run = job.shape, job.run
        size = sum(g.count * g.slots * g.share_milli for g in shape.spec.groups)
        if shape.spec.reservation is not None:
            continue
        account = shape.queue.account.id
        if run is not None and run.started_ms:
            key = (account, run.accelerator, shape.tier)
            held[key] = held.get(key, 0) + size
        elif run is None and job.queued and not shape.void:
            key = (account, shape.spec.flavours[0].accelerator, shape.tier)
            waiting[key] = waiting.get(key, 0) + size
    rates: dict[Key, tuple[int, int]] = {}
    for account, accelerator in {k[:2] for k in held.keys() | waiting.keys()}:
        left = cell.accounts[account].subtree.get(accelerator, 0)
        for tier, fraction in enumerate(cell.policy.gpu_time_fraction_ppm):
            key = (account, accelerator, tier)
            demand = min(left, held.get(key, 0) + waiting.get(key, 0))
            left -= demand
            delivered = min(held.get(key, 0), demand) if fraction else 0
            rates[key] = (fraction * demand, PPM * delivered)
    return rates
