"""Random policies: documents of random rules, most of them valid, and a cell to try them in."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

from domain import commands as c
from domain.policies.attributes import PER_JOB, READS, SUBJECTS, Phase
from domain.policies.documents import Effect, Parameter, PolicyDocument, Rule
from domain.policies.effects import FORMS
from domain.specs import (
    Flavour,
    Placement,
    Preference,
    Queue,
    Quota,
    ReplicaGroup,
    Tier,
)
from tests.domain.given import Given, job, node

PHASES: Final = tuple(Phase)
WORDS: Final = ("q0", "q1", "a", "b", "org", "premium", "basic", "h100", "npu", "c0", "own", "r")
NUMBERS: Final = (0, 1, 2, 3, 4, 8, 16, 60, 600)
SIGNALS: Final = ("signal.hour", "signal.utilisation", "signal.waiting", "signal.reported['x']")
SCOPES: Final = ("global", "global", "region/test", "region/else", "account/a", "account/org")
ACCELERATORS: Final = ("h100", "npu")


def names_of(phase: Phase, type_: str, over: tuple[str | None, ...]) -> list[str]:
    return [
        name
        for subject in over
        if subject is not None
        for name, known in SUBJECTS[subject].items()
        if known.type == type_ and (phase in PER_JOB or not known.per_job)
    ]


@st.composite
def conditions(draw: st.DrawFn, phase: Phase, depth: int = 2) -> str:
    """A condition that a rule of the phase may have; some are badly typed or never true."""
    if depth and draw(st.booleans()):
        one, two = draw(conditions(phase, depth - 1)), draw(conditions(phase, depth - 1))
        return draw(st.sampled_from((f"({one} && {two})", f"({one} || {two})", f"!({one})")))
    over = READS[phase]
    kind = draw(st.integers(0, 7))
    if kind <= 2:
        left = draw(st.sampled_from((*names_of(phase, "int", over), *SIGNALS)))
        op = draw(st.sampled_from(("==", "!=", "<", "<=", ">", ">=")))
        return f"{left} {op} {draw(integers(phase, over))}"
    if kind == 3 and (bools := names_of(phase, "bool", over)):
        return draw(st.sampled_from(bools))
    if kind == 4 and (lists := names_of(phase, "strings", over)):
        return f"'{draw(st.sampled_from(WORDS))}' in {draw(st.sampled_from(lists))}"
    if kind == 5 and (maps := names_of(phase, "map", over)):
        return f"{draw(st.sampled_from(maps))}['k'] == '{draw(st.sampled_from(WORDS))}'"
    texts = names_of(phase, "string", over)
    if not texts:
        return "true"
    name, word = draw(st.sampled_from(texts)), draw(st.sampled_from(WORDS))
    forms = (
        f"{name} == '{word}'",
        f"{name} != '{word}'",
        f"{name} in ['{word}', 'q0', 'a']",
        f"{name}.startsWith('{word[:1]}')",
        f"{name}.contains('{word[-1:]}')",
        f"has({name})",
    )
    return draw(st.sampled_from(forms))


@st.composite
def integers(draw: st.DrawFn, phase: Phase, over: tuple[str | None, ...]) -> str:
    number = draw(st.sampled_from(NUMBERS))
    kind = draw(st.integers(0, 5))
    if kind <= 2:
        return str(number)
    if kind == 3:
        return "param.p"
    name = draw(st.sampled_from((*names_of(phase, "int", over), "signal.reported['x']")))
    return f"({name} + {number})" if kind == 4 else f"({name} % {number + 1})"


@st.composite
def rules(draw: st.DrawFn, name: str, phases: tuple[Phase, ...]) -> Rule:
    phase = draw(st.sampled_from(phases))
    do = draw(st.sampled_from(sorted(FORMS[phase])))
    form = FORMS[phase][do]
    value: Any = None
    if do == "tier":
        value = draw(st.sampled_from(tuple(str(t) for t in Tier)))
    elif form.kind != "deny":
        subject, other = READS[phase]
        over = (subject, other) if form.reads else (subject,)
        plain = st.integers(max(form.low, -50), min(form.high, max(form.low, 1) * 50))
        value = draw(st.one_of(plain, integers(phase, over)))
    effect = Effect(
        do=do,  # type: ignore[arg-type]
        value=value,
        band=draw(st.integers(0, 2)) if do == "prefer" else 1,
        accelerator=draw(st.sampled_from(ACCELERATORS)) if do == "after_wait" else None,
    )
    return Rule(
        rule=name,
        phase=phase,
        when=draw(conditions(phase)),
        then=effect,
        priority=draw(st.integers(-1, 1)),
        locked=form.kind == "scalar" and draw(st.integers(0, 3)) == 0,
    )


@st.composite
def policies(
    draw: st.DrawFn, phases: tuple[Phase, ...] = PHASES, most: int = 3
) -> list[PolicyDocument]:
    found = []
    for at in range(draw(st.integers(1, most))):
        listed = tuple(draw(rules(f"r{n}", phases)) for n in range(draw(st.integers(1, 4))))
        document = PolicyDocument(
            policy=f"p{at}",
            version=1,
            scope=draw(st.sampled_from(SCOPES)),
            when=draw(st.sampled_from(("true", "true", "signal.hour < 12", "param.p > 2"))),
            params=(Parameter(param="p", value=draw(st.integers(0, 5)), min=0, max=5),),
            rules=listed,
        )
        found.append(document)
    return found


def account(name: str, parent: str | None, *queues: str) -> c.SetQuota:
    quotas = tuple(
        Quota(accelerator=t, nominal=6, borrowing_limit=4, lending_limit=2) for t in ACCELERATORS
    )
    listed = tuple(Queue(queue=q) for q in queues)
    return c.SetQuota(account=name, parent=parent, quotas=quotas, queues=listed)


def jobs() -> list[c.SubmitJob]:
    """Of different shapes; some need a gang, some accept two types."""
    both = tuple(Flavour(accelerator=a) for a in ACCELERATORS)
    wish = Placement(prefer=(Preference(label="k", values=("own",), weight=3),))
    grows = (ReplicaGroup(slots=1, grow_to=4),)
    return [
        job("plain", queue="q0"),
        job("gang", queue="q1", count=2, slots=4, tier=Tier.PREMIUM),
        job("either", queue="q0", slots=2, flavours=both, tier=Tier.BASIC, priority=3),
        job("wish", queue="q1", slots=4, placement=wish, labels={"k": "own"}),
        job("elastic", queue="q0", groups=grows, tier=Tier.RESERVED),
        job("fixed", queue="q1", slots=2, preemptible=False, flavours=both[1:]),
    ]


def nodes() -> list[c.RegisterNode]:
    return [
        node("n0", labels={"k": "own"}),
        node("n1", labels={"k": "cloud"}, path={"cluster": "c0"}),
        node("n2", accelerator="npu", slots=4),
    ]


def base() -> bytes:
    """Accounts org > a > b with queues q0 and q1, nodes of three classes, no jobs."""
    given = Given(now_ms=9 * 3_600_000)
    given.round(account("org", None), account("a", "org", "q0"), account("b", "a", "q1"), *nodes())
    return given.cell.snapshot()
