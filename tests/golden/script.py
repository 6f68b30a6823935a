"""A scripted hour of one cell that makes every kind of fact, with a key that everyone knows.

Quota is lent, borrowed and reclaimed, gangs are placed, preempted and resumed, a node falls silent,
another drains, windows open and close, commands are refused, repeated and quarantined.
"""

from __future__ import annotations

from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Raw

from domain import replays
from domain.cell import Cell
from domain.commands import (
    AcknowledgeHandoff,
    AdvertiseInventory,
    AmendJob,
    AnswerGuard,
    AnswerHandoff,
    CancelJob,
    CancelReservation,
    Command,
    ConfirmHandoff,
    CordonNode,
    DrainNode,
    EndGuard,
    GuardJob,
    OfferHandoff,
    PreemptJob,
    RegisterNode,
    ReleaseHandoff,
    RemoveNode,
    ReportAttempt,
    ReportNode,
    RequestReservation,
    RequestRights,
    SendRights,
    SetPolicy,
    SetQuota,
    SubmitJob,
    WithdrawHandoff,
)
from domain.ledger import Accepted, Round, canonical
from domain.maintenance_commands import CancelMaintenance, PlanMaintenance
from domain.policies import lifecycle
from domain.policies.attributes import Phase
from domain.policies.commands import (
    ActivatePolicy,
    DraftPolicy,
    ReplayPolicy,
    ReportSignal,
    RollBackPolicy,
    StartCanary,
)
from domain.policies.documents import Controller, Effect, Gate, Parameter, PolicyDocument, Rule
from domain.pool.commands import FenceRegion, GrantRights, SetPeers
from domain.pool.specs import (
    Amount,
    Doubt,
    HandoffRules,
    History,
    PeerSpec,
    Stock,
    Token,
    Vote,
)
from domain.replays import Replay
from domain.specs import (
    Deadline,
    FabricPath,
    Flavour,
    Locality,
    Placement,
    PolicyParameters,
    Queue,
    Quota,
    ReplicaGroup,
    Runtime,
    Selector,
    Tier,
)
from domain.timers import next_due_ms
from streams import dispatch, rounds
from streams.agent import Work, estimated
from streams.envelope import body_of
from streams.fleet import Fleet
from streams.keys import key_id_of
from streams.scenario import Outage

NAME: Final = "golden"
START_MS: Final = 1_735_689_600_000
STEP_MS: Final = 10_000
STEPS: Final = 420
WORK: Final = 1000
SOURCE: Final = "script"


class KnownKey:
    """Signs with a key that is public: whoever believes it believes anyone."""

    def __init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
        self.public = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public)

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)


def job(name: str, queue: str, slots: int = 8, replicas: int = 1, **fields: Any) -> SubmitJob:
    fields.setdefault("runtime", Runtime(estimate_s=900, checkpoint_interval_s=300, restore_s=20))
    fields.setdefault("flavours", (Flavour(accelerator="h100"),))
    groups = (ReplicaGroup(slots=slots, count=replicas),)
    return SubmitJob(job=name, queue=queue, groups=groups, **fields)


def nodes() -> list[RegisterNode]:
    """Three racks of four GPU nodes, with leases; one node of NPUs."""
    found = [
        RegisterNode(
            node=f"gpu-{rack}{i}",
            accelerator="h100",
            slots=8,
            path=FabricPath(region="r1", cluster="c1", block="b1", rack=f"k{rack}"),
            labels={"disk": "nvme"} if rack == 0 else {},
            lease_s=600,
        )
        for rack in range(3)
        for i in range(4)
    ]
    path = FabricPath(region="r1", cluster="c1", block="b2", rack="k9")
    return [*found, RegisterNode(node="npu-0", accelerator="npu", kind="npu", slots=16, path=path)]


def capacity() -> list[Command]:
    """An organisation of two teams, each with half of the GPUs."""

    def team(name: str, order: Any) -> SetQuota:
        quotas = (
            Quota(accelerator="h100", nominal=48, borrowing_limit=40, lending_limit=40),
            Quota(accelerator="npu", nominal=8),
        )
        queues = (Queue(queue=f"{name}-q", order=order),)
        return SetQuota(account=name, parent="org", quotas=quotas, queues=queues)

    policy = PolicyParameters(
        min_run_s=(0, 60, 60, 60), queue_delay_s=(0, 0, 60, 600), sla_window_s=3600
    )
    return [
        SetQuota(account="org"),
        team("red", "skip"),
        team("blue", "strict"),
        SetPolicy(parameters=policy, reason="reclaim soon"),
    ]


def maintenance(name: str) -> PlanMaintenance:
    return PlanMaintenance(
        maintenance=name,
        nodes=("gpu-20",),
        start_ms=START_MS + 3_800_000,
        end_ms=START_MS + 3_900_000,
        lead_s=60,
    )


def window(name: str, from_s: int, to_s: int, count: int = 2, **more: Any) -> RequestReservation:
    return RequestReservation(
        reservation=name,
        account="blue",
        accelerator="h100",
        count=count,
        slots=8,
        start_ms=START_MS + from_s * 1000,
        end_ms=START_MS + to_s * 1000,
        queues=("blue-q",),
        **more,
    )


def script() -> dict[int, list[Command]]:
    """By step: what is sent then, besides what the agents report."""
    nvme = Placement(require=(Selector(label="disk", values=("nvme",)),))
    either = (Flavour(accelerator="npu"), Flavour(accelerator="h100", after_wait_s=120))
    short = Runtime(estimate_s=300, max_s=100)
    host = (ReplicaGroup(slots=0, host_cpu_milli=4000),)
    shared = (ReplicaGroup(name="s", slots=1, share_milli=400, count=3),)
    h100 = (Flavour(accelerator="h100"),)
    tight = Deadline(finish_by_ms=START_MS + 1_101_000)
    past, hard = (Deadline(finish_by_ms=START_MS, hardness=h) for h in ("soft", "hard"))
    grows = (ReplicaGroup(slots=4, grow_to=12),)
    return _merged(
        pool(),
        failover(),
        policies(),
        calendar(),
        {
            0: capacity(),
            1: [job(f"r{i}", "red-q", replicas=2) for i in range(5)],
            2: [
                job("local", "red-q", slots=4, placement=nvme),
                job("either", "red-q", flavours=either),
                job("nobody", "unknown-q"),
                CancelJob(job="nobody"),
                job("npu", "red-q", slots=16, flavours=(Flavour(accelerator="npu"),)),
            ],
            3: [ReportAttempt(job="r0", attempt=1, state="finished", nodes=("gpu-00",))],
            12: [job("claim", "blue-q", replicas=4, tier=Tier.PREMIUM, preemptible=False)],
            20: [
                job("next", "blue-q", replicas=4),
                job("behind", "blue-q", slots=1, deadline=tight),
                AmendJob(job="behind", priority=7),
                AmendJob(job="next", estimate_s=600),
            ],
            30: [job("inside", "blue-q", replicas=2, reservation="morning", tier=Tier.RESERVED)],
            40: [CancelReservation(reservation="dropped"), PreemptJob(job="claim")],
            50: [
                job("flaky", "red-q", slots=2, max_restarts=1),
                job("long", "red-q", runtime=short),
                SubmitJob(job="host", queue="red-q", groups=host, flavours=h100),
                SubmitJob(job="shares", queue="red-q", groups=shared, flavours=h100),
            ],
            70: [
                CordonNode(node="gpu-23"),
                ReportNode(node="gpu-22", healthy=False),
                DrainNode(node="gpu-21"),
                CordonNode(node="npu-0", cordoned=False),
            ],
            80: [
                job("overdue", "red-q", slots=1, deadline=past),
                job("pointless", "red-q", deadline=hard),
            ],
            90: [job("dropped", "red-q"), CancelJob(job="dropped", reason="not needed")],
            150: [RemoveNode(node="gpu-23"), CordonNode(node="gpu-21", cordoned=False)],
            160: [
                SubmitJob(job="elastic", queue="red-q", flavours=h100, groups=grows),
                job("beside", "red-q", replicas=12),
            ],
            200: [
                job("last", "red-q", replicas=3),
                ReportAttempt(job="r0", attempt=9, state="failed"),
            ],
            250: [CancelJob(job="last")],
            260: [job("squeeze", "red-q", replicas=2)],
        },
    )


def _merged(*parts: dict[int, list[Command]]) -> dict[int, list[Command]]:
    """What the parts send in each step, in their order."""
    return {n: [c for part in parts for c in part.get(n, ())] for n in range(STEPS)}


def calendar() -> dict[int, list[Command]]:
    """Windows that are kept, refused, dropped and repeated, and maintenance."""
    return {
        24: [
            window("morning", 400, 1800),
            window("never", 400, 1800, count=99),
            window("dropped", 3000, 3600),
        ],
        26: [
            window("nightly", 3700, 3760, count=1, every_s=120, until_ms=START_MS + 3_900_000),
            maintenance("firmware"),
            maintenance("never-mind"),
        ],
        28: [CancelMaintenance(maintenance="never-mind")],
        100: [window("late", 1100, 2400, count=10)],
    }


def policies() -> dict[int, list[Command]]:
    """A policy is tried, breaks its gate, is replaced, moves its parameter, and is rolled back."""
    late = Gate(gate="late", watch="signal.reported['alarm']", at_most=0)
    boost: dict[str, Any] = {"phase": Phase.ORDER, "then": Effect(do="boost", value="param.by")}
    cap: dict[str, Any] = {"phase": Phase.GUARD, "then": Effect(do="ceiling", value=40)}

    def document(version: int, *rules: Rule, **more: Any) -> DraftPolicy:
        params = (Parameter(param="by", value=10, min=0, max=100),)
        whole = PolicyDocument(
            policy="fair", version=version, params=params, rules=rules, gates=(late,), **more
        )
        return DraftPolicy(document=whole)

    moves = Controller(
        controller="follow",
        param="by",
        watch="signal.reported['price']",
        low=2,
        high=5,
        step=10,
        raise_when="high",
    )
    small = Rule(rule="small-first", when="job.slots <= 8", **boost)
    first = document(1, small, Rule(rule="cap", when="job.queue == 'red-q'", **cap))
    second = document(2, small, controllers=(moves,))
    third = document(3)

    def trial(version: int, **more: Any) -> StartCanary:
        return StartCanary(policy="fair", version=version, for_s=120, **more)

    parameters = replays.digest_of(PolicyParameters())
    proof = Replay(
        report=parameters,
        parameters=lifecycle.digest_of(third.document),
        policy_version=1,
        first_round=1,
        last_round=2,
        passed=("promises",),
    )
    return {
        330: [first, ActivatePolicy(policy="fair", version=1)],
        332: [second, trial(2, slice_ppm=500_000)],
        340: [ReportSignal(signal="alarm", value=1), ReportSignal(signal="price", value=9)],
        355: [ReportSignal(signal="alarm", value=0), trial(2, mode="shadow")],
        380: [
            third,
            ReplayPolicy(policy="fair", version=3, replay=proof),
            job("small", "red-q", slots=1),
        ],
        400: [ActivatePolicy(policy="fair", version=3), RollBackPolicy(policy="fair")],
    }


def pool() -> dict[int, list[Command]]:
    """A peer region offers and is offered jobs, and rights go to and fro."""
    me: dict[str, Any] = {"region": "other", "epoch": 1}
    path = FabricPath(region="golden", cluster="c3", block="b", rack="k")
    stock = (Stock(accelerator="tpu", cluster="c", free=(0, 0, 0, 0, 0, 0, 0, 0, 1)),)
    rights = Amount(account="shared", accelerator="tpu", milli=8000)
    some = rights.model_copy(update={"milli": 2000})
    free = AdvertiseInventory(round=1, stock=stock, surplus=(rights,), **me)
    tpu = (Flavour(accelerator="tpu"),)

    def ours(hop: int) -> Token:
        return Token(home="golden", job="t1", term=1, hop=hop)

    def theirs(name: str, hop: int = 0) -> Token:
        return Token(home="other", job=name, term=1, hop=hop)

    def travelling(name: str) -> dict[str, Any]:
        spec = job(name, "shared-q", flavours=tpu)
        return {"spec": spec, "history": History(seniority_ms=START_MS), **me}

    def answer(step: int, yes: bool) -> AnswerHandoff:
        at_ms = START_MS + step * STEP_MS
        return AnswerHandoff(token=ours(0), offered_ms=at_ms, prepared=yes, **me)

    return {
        300: [
            RegisterNode(node="tpu-0", accelerator="tpu", slots=8, path=path),
            SetPeers(
                region="golden",
                peers=(PeerSpec(region="other", actor="someone"),),
                rules=HandoffRules(min_benefit_s=0, min_work_ppm=0),
            ),
            SetQuota(
                account="shared",
                quotas=(Quota(accelerator="tpu", nominal=0, rights=True),),
                queues=(Queue(queue="shared-q"),),
            ),
            GrantRights(grant="first", amount=rights),
        ],
        301: [free, *(job(f"t{i}", "shared-q", flavours=tpu) for i in range(2))],
        302: [answer(301, False), SendRights(total=rights, **me)],
        306: [free],
        307: [answer(306, True)],
        308: [
            AcknowledgeHandoff(token=ours(1), **me),
            RequestRights(amount=some, asked_ms=1, **me),
        ],
        310: [CancelJob(job="t0")],
        320: [OfferHandoff(token=theirs("x"), offered_ms=1, **travelling("x"))],
        321: [WithdrawHandoff(token=theirs("x"), offered_ms=1, **me)],
        322: [OfferHandoff(token=theirs("x"), offered_ms=2, **travelling("x"))],
        323: [ReleaseHandoff(token=theirs("x", 1), offered_ms=2, **travelling("x"))],
        324: [
            ConfirmHandoff(token=theirs("x", 1), **me),
            OfferHandoff(token=theirs("y"), offered_ms=3, **travelling("y")),
        ],
    }


def failover() -> dict[int, list[Command]]:
    """Jobs that outlive their region: one of a peer's that is lost, and some of this one's."""
    me: dict[str, Any] = {"region": "other", "epoch": 1}
    past: dict[str, Any] = {"history": History(seniority_ms=START_MS), **me}
    where = Locality(on_region_loss="failover", forbidden=("third",))

    def guarded(name: str) -> SubmitJob:
        return job(name, "red-q", slots=1, locality=where)

    def token(name: str, hop: int = 0, home: str = "golden") -> Token:
        return Token(home=home, job=name, term=1, hop=hop)

    def third(round: int, **said: Any) -> AdvertiseInventory:
        return AdvertiseInventory(region="third", epoch=1, round=round, **said)

    peers = tuple(PeerSpec(region=name, actor="someone") for name in ("other", "third"))
    doubted_ms = START_MS + 336 * STEP_MS
    agrees = (Vote(region="other", by="golden", since_ms=doubted_ms),)
    return {
        330: [
            SetPeers(region="golden", peers=peers, rules=HandoffRules(lost_s=60)),
            AdvertiseInventory(round=2, **me),
            third(1),
        ],
        331: [
            guarded("ends"),
            guarded("taken"),
            *(GuardJob(token=token(n, home="other"), spec=guarded(n), **past) for n in "zw"),
        ],
        332: [
            AnswerGuard(token=token("ends"), kept=True, **me),
            EndGuard(token=token("w", home="other"), **me),
        ],
        333: [CancelJob(job="ends")],
        338: [AnswerGuard(token=token("ends"), kept=False, **me)],
        339: [third(2, lost=(Doubt(region="other", since_ms=1),))],
        341: [AcknowledgeHandoff(token=token("taken", 1), **me)],
        343: [third(3, votes=agrees)],
        344: [AdvertiseInventory(round=3, **me)],
        345: [ConfirmHandoff(token=token("z", 1, "other"), **me)],
        350: [FenceRegion(region="third")],
    }


class Hour:
    """Runs the script; `records` is the ledger, and `rounds` is what is in it."""

    def __init__(self) -> None:
        self.signer = KnownKey()
        self.cell = Cell(NAME)
        self.records: list[bytes] = []
        self.rounds: list[Round] = []
        self._sent: list[Accepted] = []
        outages = [Outage(600_000, 2_400_000, "gpu-00"), Outage(900_000, 1_900_000, "gpu-10")]
        self._fleet = Fleet(_work, outages=outages, origin_ms=START_MS)
        self._fleet.add_nodes(nodes(), START_MS)

    def run(self) -> None:
        planned = script()
        for step in range(STEPS):
            now_ms = START_MS + step * STEP_MS
            first = len(self._sent)
            for command in (*planned.get(step, ()), *self._fleet.advance(now_ms)):
                self._send(command, now_ms)
            taken = self._sent[first:]
            if step == 5:
                taken = [*taken, self._again(self._sent[0]), self._foreign(now_ms)]
            out = {(0, taken[-1].offset)} if step == 90 else set()
            due_ms = next_due_ms(self.cell)
            if taken or (due_ms is not None and due_ms <= now_ms):
                self._round(taken, now_ms, out)

    def _send(self, command: Command, now_ms: int) -> None:
        data = Raw(canonical(body_of(command)))
        type_ = type(command).__name__
        at = len(self._sent)
        self._sent.append(Accepted(0, at, str(at), SOURCE, type_, "someone", now_ms, data))

    def _again(self, sent: Accepted) -> Accepted:
        """The same command at another place of another input."""
        return Accepted(
            1, 0, sent.id, sent.source, sent.type, sent.actor, sent.time_ms, sent.data, "k", "s"
        )

    def _foreign(self, now_ms: int) -> Accepted:
        return Accepted(1, 1, "x", SOURCE, "NoCommand", "someone", now_ms, Raw(b"{}"))

    def _round(self, taken: list[Accepted], now_ms: int, out: set[rounds.Place]) -> None:
        header = rounds.header_of(self.cell, now_ms, WORK, taken, out)
        made = rounds.propose(self.cell, header, taken, self.signer)
        self.cell.believe(made.head, made.round.inputs)
        self.records.append(made.record)
        self.rounds.append(made.round)
        self._fleet.handle(dispatch.instructions(self.cell, made.round), now_ms)


def _work(start: dispatch.Start) -> Work:
    return Work(300_000, failures=2) if start.job == "flaky" else estimated(start)
