"""A naive model of a cell: it keeps what facts say, and checks every round by brute force."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from domain import facts as f
from domain.commands import COMMANDS, Command, RegisterNode, SubmitJob
from domain.ledger import Round
from domain.specs import TIERS, PolicyParameters, Tier
from tests.domain.naive_jobs import Attempt, NaiveJob

LEVELS = ("region", "cluster", "block", "rack")


@dataclass
class Naive:
    nodes: dict[str, RegisterNode] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    cordoned: set[str] = field(default_factory=set)
    sick: set[str] = field(default_factory=set)
    accounts: dict[str, Any] = field(default_factory=dict)
    jobs: dict[str, NaiveJob] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    reservations: dict[str, Any] = field(default_factory=dict)
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    order: int = 0
    now_ms: int = 0
    victims: set[str] = field(default_factory=set)
    """Of the last preemption; parts of elastic attempts are in `given_up`."""
    given_up: set[tuple[str, int]] = field(default_factory=set)
    policy: PolicyParameters = field(default_factory=PolicyParameters)

    # --- following the facts ---

    def follow(self, round: Round) -> None:
        self.check_outcomes(round)
        self.now_ms = round.header.now_ms
        preempted: dict[tuple[str, int], str] = {}
        for fact in round.facts:
            command = _named(fact, round)
            if isinstance(fact, f.PreemptionDecided):
                for victim in fact.victims:
                    one = (victim.job, victim.part)
                    assert one not in preempted, "nothing is preempted twice in a round"
                    preempted[one] = fact.cause
                self.check_victims(fact)
            if isinstance(fact, f.AttemptStarted | f.JobClaimed) and fact.nodes:
                # What an operator stopped may have ended by a report of the same round.
                cause = preempted.get((fact.job, 0), "operator")
                assert cause == "operator", "a victim is not placed again in its round"
            self._apply(fact, command)
        self.check_slots()
        self.check_devices()

    def check_outcomes(self, round: Round) -> None:
        """Each command was answered once: by facts, a refusal, or as a duplicate."""
        refused = [r.command for r in round.refusals]
        named = {x.command for x in round.facts if hasattr(x, "command")}
        assert len(set(refused)) == len(refused)
        assert not set(refused) & set(round.duplicates)
        assert not named & set(refused), "a refused command has no facts"
        assert not named & set(round.duplicates), "a duplicate has no facts"

    def _apply(self, fact: f.AnyFact, command: Command | None) -> None:
        handler = getattr(self, f"_{type(fact).__name__}", None)
        if handler is not None:
            handler(fact, command)

    def _JobAdmitted(self, fact: f.JobAdmitted, command: SubmitJob) -> None:
        assert command.job not in self.jobs
        assert command.job not in self.ended, "a name is used once"
        instead = {"tier": fact.tier and Tier(fact.tier), "priority": fact.priority}
        command = command.model_copy(update={n: v for n, v in instead.items() if v is not None})
        self.jobs[command.job] = NaiveJob(command, self.order)
        self.order += 1

    def _JobAmended(self, fact: f.JobAmended, command: Any) -> None:
        job = self.jobs[command.job]
        assert job.attempt is None
        given = {n: getattr(command, n) for n in ("tier", "priority")}
        job.spec = job.spec.model_copy(update={n: v for n, v in given.items() if v is not None})

    def _PolicySet(self, fact: f.PolicySet, command: Any) -> None:
        self.policy = command.parameters

    def _JobClaimed(self, fact: f.JobClaimed, command: None) -> None:
        self.check_claimed_quota(self.jobs[fact.job], fact.flavour)
        self._begin(fact, waits=bool(fact.waits_for))

    def _AttemptStarted(self, fact: f.AttemptStarted, command: None) -> None:
        job = self.jobs[fact.job]
        if fact.nodes:
            self.check_quota(job, fact.flavour)
            self._begin(fact, waits=False)
        attempt = job.attempt
        assert attempt is not None, "nothing starts without a place"
        assert attempt.number == fact.attempt
        assert not attempt.started
        attempt.started, attempt.waits = True, False

    def _begin(self, fact: Any, waits: bool) -> None:
        job = self.jobs[fact.job]
        assert job.attempt is None, "a job has one attempt at a time"
        assert fact.attempt == job.attempts + 1, "attempts are numbered without a gap"
        job.attempts = fact.attempt
        self.check_first_in_line(job)
        accelerator = job.spec.flavours[fact.flavour].accelerator
        job.attempt = Attempt(fact.job, fact.attempt, fact.nodes, accelerator, waits=waits)
        self.check_gang(job, fact.nodes, accelerator)

    def _AttemptRunning(self, fact: f.AttemptRunning, command: Any) -> None:
        attempt = self.jobs[fact.job].attempt
        assert attempt is not None
        assert attempt.started
        assert not attempt.running
        attempt.running = True

    def _AttemptStopping(self, fact: f.AttemptStopping, command: None) -> None:
        attempt = self.jobs[fact.job].attempt
        assert attempt is not None
        assert attempt.started
        assert not attempt.stopping or fact.reason == "cancelled"
        attempt.stopping = True

    def _AttemptGrown(self, fact: f.AttemptGrown, command: None) -> None:
        job = self.jobs[fact.job]
        attempt, group = job.attempt, job.spec.groups[0]
        assert attempt is not None
        assert attempt.started
        assert not attempt.stopping, "what is told to stop does not grow"
        assert fact.attempt == attempt.number
        assert fact.part == max(attempt.parts, default=0) + 1 or fact.part > 1
        assert sum(replicas for _, replicas, *_ in fact.nodes) == group.grow_by
        size = group.grow_by * group.slots * 1000
        owner = self.owner(job)
        assert self.available(owner, attempt.accelerator) >= size, "growth is within quota"
        attempt.parts[fact.part] = fact.nodes
        assert group.grow_to is not None
        assert group.count + len(attempt.parts) * group.grow_by <= group.grow_to
        for name, _, _, _ in fact.nodes:
            assert name not in self.down | self.cordoned | self.sick, "no new work there"
        self._one_domain([p[0] for p in attempt.places], job.spec.placement.required_level.value)

    def _AttemptShrinking(self, fact: f.AttemptShrinking, command: None) -> None:
        attempt = self.jobs[fact.job].attempt
        assert attempt is not None
        assert fact.part in attempt.parts
        assert fact.part not in attempt.leaving
        attempt.leaving.add(fact.part)

    def _AttemptShrunk(self, fact: f.AttemptShrunk, command: None) -> None:
        attempt = self.jobs[fact.job].attempt
        assert attempt is not None
        del attempt.parts[fact.part]
        attempt.leaving.discard(fact.part)

    def _AttemptEnded(self, fact: f.AttemptEnded, command: None) -> None:
        job = self.jobs[fact.job]
        assert job.attempt is not None
        assert job.attempt.number == fact.attempt
        job.attempt = None

    def _JobRequeued(self, fact: f.JobRequeued, command: None) -> None:
        assert self.jobs[fact.job].attempt is None
        self.jobs[fact.job].rests_until_ms = fact.not_before_ms

    def _gone(self, fact: Any, state: str) -> None:
        assert self.jobs.pop(fact.job).attempt is None
        assert fact.job not in self.ended, "a job ends once"
        self.ended[fact.job] = state

    def _JobFinished(self, fact: f.JobFinished, command: None) -> None:
        self._gone(fact, "finished")

    def _JobFailed(self, fact: f.JobFailed, command: None) -> None:
        self._gone(fact, "failed")

    def _JobCancelled(self, fact: f.JobCancelled, command: None) -> None:
        self._gone(fact, "cancelled")

    def _NodeRegistered(self, fact: f.NodeRegistered, command: RegisterNode) -> None:
        self.nodes[command.node] = command
        self.down.discard(command.node)
        self.sick.discard(command.node)

    def _NodeReported(self, fact: f.NodeReported, command: None) -> None:
        self.down.discard(fact.node)
        (self.sick.discard if fact.healthy else self.sick.add)(fact.node)

    def _NodeCordoned(self, fact: f.NodeCordoned, command: None) -> None:
        (self.cordoned.add if fact.cordoned else self.cordoned.discard)(fact.node)

    def _NodeDraining(self, fact: f.NodeDraining, command: None) -> None:
        self.cordoned.add(fact.node)

    def _NodeDrained(self, fact: f.NodeDrained, command: None) -> None:
        for job in self.jobs.values():
            if job.attempt is not None:
                assert fact.node not in {p[0] for p in job.attempt.nodes}, "drained means empty"

    def _NodeLost(self, fact: f.NodeLost, command: None) -> None:
        self.down.add(fact.node)
        for job in self.jobs.values():
            if job.attempt is not None:
                assert fact.node not in {p[0] for p in job.attempt.nodes}, "its gangs ended first"

    def _NodeRemoved(self, fact: f.NodeRemoved, command: None) -> None:
        del self.nodes[fact.node]
        for places in (self.down, self.cordoned, self.sick):
            places.discard(fact.node)

    def _QuotaSet(self, fact: f.QuotaSet, command: Any) -> None:
        self.accounts[command.account] = command

    def _ReservationConfirmed(self, fact: f.ReservationConfirmed, command: Any) -> None:
        assert command.reservation not in self.reservations
        self.reservations[command.reservation] = command
        self.held[command.reservation] = {}

    def _ReservationClaimed(self, fact: f.ReservationClaimed, command: None) -> None:
        held = self.held[fact.reservation]
        for node, slots in fact.nodes:
            held[node] = held.get(node, 0) + slots
        spec = self.reservations[fact.reservation]
        assert sum(held.values()) <= spec.count * spec.slots

    def _ReservationUnbound(self, fact: f.ReservationUnbound, command: None) -> None:
        del self.held[fact.reservation][fact.node]

    def _ReservationEnded(self, fact: f.ReservationEnded, command: None) -> None:
        self.held[fact.reservation] = {}
        if not fact.next_start_ms:
            del self.reservations[fact.reservation], self.held[fact.reservation]

    # --- invariants ---

    def check_first_in_line(self, job: NaiveJob) -> None:
        """Nobody who asked for the same before it still waits."""
        assert job.rests_until_ms <= self.now_ms, "who backs off is not started"
        if self.policy.order != "seniority":
            return
        for other in self.jobs.values():
            ready = other.attempt is None and other.rests_until_ms <= self.now_ms
            assert not ready or other.order >= job.order or other.line != job.line, "in line"

    def check_quota(self, job: NaiveJob, flavour: int) -> None:
        if job.spec.reservation is None:
            type_ = job.spec.flavours[flavour].accelerator
            free = self.available(self.owner(job), type_)
            assert job.size <= free, "new work respects quota"

    def check_claimed_quota(self, job: NaiveJob, flavour: int) -> None:
        """When all that stops has stopped, the claim is within quota."""
        stopping = {j.spec.job: j.attempt for j in self.jobs.values() if self.stops(j)}
        for name in stopping:
            self.jobs[name].attempt = None
        shrinking = [
            (j.attempt.parts, part, j.attempt.parts.pop(part))
            for j in self.jobs.values()
            for part in list(j.attempt.parts if j.attempt else ())
            if j.attempt and (part in j.attempt.leaving or (j.spec.job, part) in self.given_up)
        ]
        self.check_quota(job, flavour)
        for parts, part, nodes in shrinking:
            parts[part] = nodes
        for name, attempt in stopping.items():
            self.jobs[name].attempt = attempt

    def stops(self, job: NaiveJob) -> bool:
        return job.attempt is not None and (job.attempt.stopping or job.spec.job in self.victims)

    def check_victims(self, decided: f.PreemptionDecided) -> None:
        """Whoever is preempted may be, and for a claim that may preempt."""
        claimant = (
            self.jobs.get(decided.preemptor) if decided.cause in ("tier", "reclaim") else None
        )
        self.victims = {v.job for v in decided.victims if not v.part}
        self.given_up = {(v.job, v.part) for v in decided.victims if v.part}
        for part in (v for v in decided.victims if v.part):
            attempt = self.jobs[part.job].attempt
            assert attempt is not None
            assert part.part in attempt.parts, "it gives up what it has"
            assert part.part not in attempt.leaving
            assert part.cost_slot_s == 0
        for victim in (self.jobs[v.job] for v in decided.victims if not v.part):
            assert victim.attempt is not None
            assert victim.attempt.started
            assert not victim.attempt.stopping
            if decided.cause == "operator":
                continue
            assert victim.spec.preemptible
            assert victim.spec.reservation is None
            if claimant is not None:
                assert self.may_preempt(claimant, victim)
            if decided.cause == "consolidation":
                tiers = (self.jobs[n].spec.tier for n in (decided.preemptor, victim.spec.job))
                assert sorted(ranks := [TIERS.index(t) for t in tiers]) == ranks, "not the stronger"
                assert len(victim.attempt.nodes) == 1, "it lies on one node"

    def may_preempt(self, claimant: NaiveJob, victim: NaiveJob) -> bool:
        owner, type_ = self.owner(claimant), victim.attempt.accelerator if victim.attempt else ""
        lender = self.owner(victim)
        assert victim.attempt is not None
        assert victim.attempt.running, "what has not run yet is no victim"
        rank, other = TIERS.index(claimant.spec.tier), TIERS.index(victim.spec.tier)
        if self.policy.yield_ratio_milli and owner == lender and rank == other:
            return True
        borrows = self.reached(lender, type_) > self.subtree(lender, type_) and other > 0
        within = self.reached(owner, type_) + claimant.size <= self.subtree(owner, type_)
        return (other > rank and (within or owner == lender)) or (within and borrows)

    def check_gang(self, job: NaiveJob, nodes: list[Any], accelerator: str) -> None:
        """All replicas, on nodes that may take them, in one domain of the required level."""
        spec = job.spec
        placed: dict[int, int] = {}
        for name, replicas, group, device in nodes:
            placed[group] = placed.get(group, 0) + replicas
            known = self.nodes[name]
            assert known.accelerator == accelerator
            labels = self.labels(known)
            for selector in spec.placement.require:
                assert labels.get(selector.label) in selector.values, "a required label holds"
            for selector in spec.placement.forbid:
                assert labels.get(selector.label) not in selector.values, "a forbidden one does not"
            if spec.reservation is None:
                assert name not in self.down | self.cordoned | self.sick, "no new work there"
            assert (device >= 0) == (spec.groups[group].share_milli < 1000)
        for index, group in enumerate(spec.groups):
            assert placed.get(index, 0) == group.count, "a gang is whole"
            for name in {n[0] for n in nodes}:
                here = sum(r for n, r, g, _ in nodes if n == name and g == index)
                assert group.max_per_node is None or here <= group.max_per_node
        self._one_domain([n[0] for n in nodes], spec.placement.required_level.value)
        for index, group in enumerate(spec.groups):
            self._check_rules(group, [(n, r) for n, r, g, _ in nodes if g == index])
        for rule in spec.placement.affinity:
            self._check_affinity(job, rule, {self._domain(n[0], rule.level) for n in nodes})

    def _check_rules(self, group: Any, placed: list[tuple[str, int]]) -> None:
        """Slices are whole in each domain of their level; no more lie together than may."""
        spread = [] if group.spread is None else [(group.spread.level, group.spread.max_replicas)]
        for level, most in spread:
            together = self._by_domain(placed, level)
            assert all(n <= most for n in together.values()), "spread"
        for part in group.slices:
            together = self._by_domain(placed, part.level)
            assert all(n % part.size == 0 for n in together.values()), "slices"

    def _by_domain(self, placed: list[tuple[str, int]], level: Any) -> dict[tuple[str, ...], int]:
        found: dict[tuple[str, ...], int] = {}
        for name, replicas in placed:
            domain = self._domain(name, level)
            found[domain] = found.get(domain, 0) + replicas
        return found

    def _check_affinity(self, job: NaiveJob, rule: Any, own: set[tuple[str, ...]]) -> None:
        """The job lies with, and apart from, the others that name the key."""
        others: set[tuple[str, ...]] = set()
        for other in self.jobs.values():
            keys = {a.key for a in other.spec.placement.affinity}
            if other is not job and other.attempt is not None and rule.key in keys:
                others |= {self._domain(n[0], rule.level) for n in other.attempt.nodes}
        if rule.mode == "apart":
            assert not own & others, "apart"
        else:
            assert not others or own <= others, "together"

    def _domain(self, name: str, level: Any) -> tuple[str, ...]:
        path = self.nodes[name].path
        names = [*(getattr(path, part) for part in LEVELS), name]
        return tuple(names[: [*LEVELS, "node"].index(level.value) + 1])

    def _one_domain(self, names: list[str], level: str) -> None:
        if level == "node":
            assert len(set(names)) == 1
            return
        depth = LEVELS.index(level) + 1
        paths = [self.nodes[n].path for n in names]
        tops = {tuple(getattr(p, part) for part in LEVELS[:depth]) for p in paths}
        assert len(tops) == 1, f"one {level} holds the gang"

    def labels(self, node: RegisterNode) -> dict[str, str]:
        path = {level: getattr(node.path, level) for level in LEVELS}
        return {**node.labels, **path, "node": node.node}

    def check_slots(self) -> None:
        """No slot twice: started attempts and holdings fit on each node."""
        used: dict[str, int] = {}
        host: dict[str, list[int]] = {}
        inside: dict[tuple[str, str], int] = {}
        for job in self.jobs.values():
            attempt = job.attempt
            for name, replicas, index, device in attempt.places if attempt else ():
                group = job.spec.groups[index]
                if attempt is not None and attempt.started:
                    cpu = host.setdefault(name, [0, 0])
                    cpu[0] += replicas * group.host_cpu_milli
                    cpu[1] += replicas * group.host_memory_mib
                slots = replicas * group.slots if device < 0 else 0
                if job.spec.reservation is not None:
                    key = (job.spec.reservation, name)
                    inside[key] = inside.get(key, 0) + slots
                elif attempt is not None and not attempt.waits:
                    used[name] = used.get(name, 0) + slots
        for (reservation, name), slots in inside.items():
            assert slots <= self.held[reservation].get(name, 0), "inside what is held"
        for (name, device), milli in self.devices().items():
            used[name] = used.get(name, 0) + 1
            assert milli <= 1000, f"device {device} of {name} is shared by more than all of it"
        for name, slots in used.items():
            assert slots <= self.nodes[name].slots, f"{name} has {slots} slots in use"
        for name, (cpu_milli, memory_mib) in host.items():
            assert cpu_milli <= self.nodes[name].host_cpu_milli
            assert memory_mib <= self.nodes[name].host_memory_mib

    def devices(self) -> dict[tuple[str, int], int]:
        shared: dict[tuple[str, int], int] = {}
        for job in self.jobs.values():
            for name, replicas, index, device in job.attempt.nodes if job.attempt else ():
                if device >= 0:
                    milli = replicas * job.spec.groups[index].share_milli
                    shared[(name, device)] = shared.get((name, device), 0) + milli
        return shared

    def check_devices(self) -> None:
        for (name, device), milli in self.devices().items():
            assert 0 <= device < self.nodes[name].slots
            assert milli <= 1000

    # --- quota by brute force ---

    def usage(self) -> dict[tuple[str, str], int]:
        """By (account, type), thousandths of slots of its own queues' attempts."""
        owner = {q.queue: a.account for a in self.accounts.values() for q in a.queues}
        used: dict[tuple[str, str], int] = {}
        for job in self.jobs.values():
            if job.attempt is None or job.spec.reservation is not None:
                continue
            key = (owner[job.spec.queue], job.attempt.accelerator)
            group = job.spec.groups[0]
            size = job.size + len(job.attempt.parts) * group.grow_by * group.slots * 1000
            used[key] = used.get(key, 0) + size
        return used

    def owner(self, job: NaiveJob) -> str:
        found = [
            n for n, a in self.accounts.items() if job.spec.queue in {q.queue for q in a.queues}
        ]
        assert len(found) == 1, "a queue is of one account"
        return found[0]

    def limit(self, account: str, type_: str, name: str) -> int | None:
        """An entry of the account's quota, in thousandths."""
        for entry in self.accounts[account].quotas:
            if entry.accelerator == type_ and entry.from_ms <= self.now_ms < entry.until_ms:
                value = getattr(entry, name)
                return None if value is None else 1000 * value
        return None

    def below(self, account: str) -> list[str]:
        return [n for n, a in self.accounts.items() if a.parent == account]

    def subtree(self, account: str, type_: str) -> int:
        lent = (self.subtree(b, type_) - self.kept(b, type_) for b in self.below(account))
        return (self.limit(account, type_, "nominal") or 0) + sum(lent)

    def kept(self, account: str, type_: str) -> int:
        """What it never lends."""
        lending = self.limit(account, type_, "lending_limit")
        return 0 if lending is None else max(0, self.subtree(account, type_) - lending)

    def reached(self, account: str, type_: str) -> int:
        """Its own use, and what its children use beyond what they keep."""
        over = (max(0, self.reached(b, type_) - self.kept(b, type_)) for b in self.below(account))
        return self.usage().get((account, type_), 0) + sum(over)

    def available(self, account: str, type_: str) -> int:
        used, brings = self.reached(account, type_), self.subtree(account, type_)
        parent = self.accounts[account].parent
        if parent is None:
            return brings - used
        kept = self.kept(account, type_)
        above = self.available(parent, type_)
        limit = self.limit(account, type_, "borrowing_limit")
        if limit is not None:
            above = min(above, brings - kept - max(0, used - kept) + limit)
        return max(0, kept - used) + above


def _named(fact: f.AnyFact, round: Round) -> Command | None:
    """The command that the fact names, if it names one."""
    index = getattr(fact, "command", None)
    if index is None:
        return None
    accepted = round.commands[index]
    command: Command = COMMANDS[accepted.type].model_validate_json(bytes(accepted.data))
    return command
