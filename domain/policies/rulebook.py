"""The rules in force of a cell, compiled; all of it is derived from its policies and signals.

A change of versions, signals or parameters is settled at once for all shapes, by columns. In
between, rounds read the ruling that each shape carries, so that rules cost a round next to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from domain.policies import rows
from domain.policies.attributes import Phase
from domain.policies.compiler import Names, Row, compile
from domain.policies.effects import PPM
from domain.policies.live import (
    Live,
    Resolved,
    Scoped,
    clamped,
    holding,
    live_rule,
    resolve,
)
from domain.policies.ruling import NO_RULING, Ruling, Terms, Verdict, ruling_of
from domain.policies.syntax import substitute
from domain.policies.validation import WHEN, value_of, when_of
from domain.quota import depth

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import SubmitJob
    from domain.fabric import NodeClass
    from domain.policies.state import Policy, Version
    from domain.quota import Queue
    from domain.shapes import Shape

RULES_MAX: Final = 512
"""Rules in force at once, rules on trial included."""
OF_SHAPES: Final = (Phase.GUARD, Phase.ORDER, Phase.SCORE, Phase.REMEDY, Phase.SCALE)
WHERE: Final = (Phase.GUARD, Phase.SCORE)
CACHED_MAX: Final = 50_000
ROWS_A_UNIT: Final = 10_000
"""Rows that rules are asked for at the cost of one unit of work."""


class _Held:
    """Rules that hold for the same shapes, as far as these alone tell."""

    __slots__ = ("bound", "numbers", "rules", "rulings")

    def __init__(self, rules: list[Live]) -> None:
        self.rules = rules
        self.numbers = tuple([r.number for r in rules])
        self.bound = sorted({i for r in rules for i in r.bound})
        self.rulings: dict[tuple[int, ...], Ruling] = {}


class Rulebook:
    def __init__(self) -> None:
        self.dirty = False
        """A fact changed what counts, and the rules have not been settled since."""
        self.rows_version = 1
        """Rows of shapes that are of an older one are found anew."""
        self.reads: tuple[str, ...] = ()
        """Signals that are read by what is in force or on trial."""
        self.by_phase: dict[Phase, list[Live]] = {}
        self.protects = False
        """True iff a rule may protect a shape from being preempted."""
        self.weighs = False
        """True iff a rule may weigh what a shape loses."""
        self.names = Names()
        self._shape_rules: list[Live] = []
        self._terms: dict[object, Terms] = {}
        self._rulings: dict[object, Ruling] = {}
        self._tokens: dict[object, int] = {}
        self._live: dict[object, Live] = {}
        """By version, rule, and what it reads of signals and parameters."""
        self._admissions: dict[bytes, tuple[list[tuple[Live, int]], Resolved]] = {}
        self.verdicts: dict[bytes, Verdict] = {}
        """By key of a shape, where jobs of one shape are admitted alike."""
        self._admit_shapes: list[Live] = []
        self._admit_jobs: list[Live] = []
        """Rules of admission that read what is one job's own."""

    def accounts_changed(self) -> None:
        """Who stands below whom may have changed, and so what rules say of shapes."""
        self.rows_version += 1
        self._forget_admissions()
        self.dirty = True

    @property
    def admits_alike(self) -> bool:
        """True iff jobs of one shape are admitted alike."""
        return not self._admit_jobs

    def _forget_admissions(self) -> None:
        self._admissions.clear()
        self.verdicts.clear()

    # --- settling ---------------------------------------------------------------------------------

    def settle(self, cell: Cell) -> int:
        """Bring all that rules say up to date; returns the units of work that it was worth."""
        sizes = map(len, (self._rulings, self.names.items, self._live))
        full = max(sizes) > CACHED_MAX
        if not (self.dirty or full):
            return 0
        dirty, self.dirty = self.dirty, False
        if full:
            self.names, self._terms, self._rulings = Names(), {}, {}
            self._tokens, self._live = {}, {}
            self.rows_version += 1
        before = bool(self._shape_rules)
        self.by_phase = self.rules_of(cell)
        admits = self.by_phase.get(Phase.ADMIT, ())
        asked = [(r.number, r.first) for r in admits if not r.per_job]
        if full or asked != [(r.number, r.first) for r in self._admit_shapes]:
            self._forget_admissions()
        self._admit_shapes = [r for r in admits if not r.per_job]
        if self._admit_shapes and not self._admissions:
            self._admit_all(cell)
        self._admit_jobs = [r for r in admits if r.per_job]
        if self._admit_jobs:
            self.verdicts.clear()
        self._shape_rules = [r for phase in OF_SHAPES for r in self.by_phase.get(phase, ())]
        remedies = {r.slot for r in self.by_phase.get(Phase.REMEDY, ())}
        self.protects, self.weighs = "protect" in remedies, "loss" in remedies
        if before or self._shape_rules:
            for shape, ruling in zip(cell.shapes.values(), self._rule_all(cell), strict=True):
                if shape.ruling != ruling:
                    cell.relink_shape(shape, ruling)
        self._limit(cell)
        return dirty * len(cell.shapes) * len(self._shape_rules) // ROWS_A_UNIT

    def rules_of(self, cell: Cell, shadow: Policy | None = None) -> dict[Phase, list[Live]]:
        """By phase: the rules in force, by name; `shadow`: as if this one's trial counted."""
        found: dict[Phase, list[Live]] = {}
        reads: dict[str, None] = {}
        for _, policy in sorted(cell.policies.items()):
            for number, slice_ppm in _versions(policy, policy is shadow):
                version = policy.versions[number]
                reads.update(dict.fromkeys(signals_read(version)))
                for rule in self._rules(cell, policy, number, slice_ppm):
                    found.setdefault(rule.phase, []).append(rule)
        if shadow is None:
            self.reads = tuple(sorted(reads))
        for rules in found.values():
            rules.sort(key=lambda r: r.name)
        return found

    def _rules(
        self, cell: Cell, policy: Policy, number: int, slice_ppm: tuple[int, int]
    ) -> list[Live]:
        version = policy.versions[number]
        document, trees = version.document, version.trees
        scoped = _scoped(cell, document.scope, slice_ppm)
        if scoped is None:
            return []
        values = {s: cell.signals.values.get(s, 0) for s in signals_read(version)}
        values.update((f"param.{n}", v) for n, v in policy.params(number).items())
        if not compile(substitute(trees[WHEN], values), self.names, "signal")((), ()):
            return []
        where, made = (policy.id, number, scoped.account, scoped.specific, slice_ppm), []
        for rule in document.rules:
            places = (when_of(rule.rule), value_of(rule.rule))
            inputs = [values[n] for place in places for n in version.reads.get(place, ())]
            key = (*where, rule.rule, *inputs)
            live = self._live.get(key)
            if live is None:
                live = live_rule(policy.id, rule, trees, scoped, values, self.names)
                live.version = number
                live.number = self._tokens.setdefault(live.token, len(self._tokens))
                self._live[key] = live
            made.append(live)
        return made

    # --- shapes -----------------------------------------------------------------------------------

    def rule(self, cell: Cell, spec: SubmitJob, queue: Queue) -> Ruling:
        """The ruling of one shape."""
        if not self._shape_rules:
            return NO_RULING
        row = rows.of_spec(self.names, spec, queue)
        return self._ruling(_Held([r for r in self._shape_rules if r.static(row, ())]), row)

    def _rule_all(self, cell: Cell) -> list[Ruling]:
        """The rulings of all shapes, in their order."""
        shapes = list(cell.shapes.values())
        if not self._shape_rules or not shapes:
            return [NO_RULING] * len(shapes)
        return self.rule_rows(self._shape_rules, [self.row(s) for s in shapes])

    def held(self, shape: Shape) -> list[Live]:
        """Rules that hold for the shape, as far as it alone tells."""
        asked = [*self._shape_rules, *self.by_phase.get(Phase.HANDOFF, ()), *self._admit_shapes]
        row = self.row(shape)
        return [r for r in asked if not r.per_job and r.static(row, ())] if asked else []

    def class_row(self, class_: NodeClass) -> Row:
        return rows.of_class(self.names, class_)

    def row(self, shape: Shape) -> Row:
        if shape.row_version != self.rows_version:
            shape.row = rows.of_spec(self.names, shape.spec, shape.queue)
            shape.row_version = self.rows_version
        return shape.row

    def supposed(self, cell: Cell, shadow: Policy) -> list[Ruling]:
        """The rulings of all shapes as if the trial of this policy counted."""
        by_phase = self.rules_of(cell, shadow)
        rules = [r for phase in OF_SHAPES for r in by_phase.get(phase, ())]
        if not rules or not cell.shapes:
            return [NO_RULING] * len(cell.shapes)
        return self.rule_rows(rules, [self.row(s) for s in cell.shapes.values()])

    def rule_rows(self, rules: Sequence[Live], table: Sequence[Row]) -> list[Ruling]:
        """The rulings of rows, found by columns."""
        held = held_by(rules, table)
        return [self._ruling(h, row) for h, row in zip(held, table, strict=True)]

    def _ruling(self, held: _Held, row: Row) -> Ruling:
        if not held.rules:
            return NO_RULING
        bound = tuple([row[i] for i in held.bound])
        known = held.rulings.get(bound)
        if known is None:
            known = self._rulings.get((held.numbers, bound))
            if known is None:
                known = self._rulings[held.numbers, bound] = self._made(held.rules, row)
            held.rulings[bound] = known
        return known

    def _made(self, held: list[Live], row: Row) -> Ruling:
        where = [r for r in held if r.varies]
        values = [(r, clamped(r, r.value(row, ()))) for r in held if not r.varies]
        return ruling_of(values, self._terms_of(where, row))

    def _terms_of(self, where: list[Live], row: Row) -> Terms | None:
        if not where:
            return None
        bound = [{i: row[i] for i in rule.bound} for rule in where]
        key = tuple((r.number, *b.items()) for r, b in zip(where, bound, strict=True))
        found = self._terms.get(key)
        if found is None:
            found = self._terms[key] = Terms([(r, row) for r in where], self.names)
        return found

    # --- where no shape is asked for --------------------------------------------------------------

    def ask(self, phase: Phase, row: Row, other: Row = ()) -> tuple[dict[str, int], str, str]:
        """What rules of a phase do for the rows; and the rule that denies, with its reason."""
        held = holding(self.by_phase.get(phase, ()), row, other)
        outcome, why = resolve(held)
        if "deny" not in outcome:
            return outcome, "", ""
        name = why["deny"][0][0]
        return outcome, name, next(r.reason for r, _ in held if r.name == name)

    def admission(self, key: bytes, row: Callable[[bool], Row]) -> Resolved:
        """What rules of admission do; those that read shapes alone are asked once for a key.

        `row` makes the job's row, with what is its own if that is asked for.
        """
        known = self._admissions.get(key)
        if known is None:
            held = holding(self._admit_shapes, row(False), ())
            known = (held, resolve(held))
            if len(self._admissions) < CACHED_MAX:
                self._admissions[key] = known
        if not self._admit_jobs:
            return known[1]
        return resolve(known[0] + holding(self._admit_jobs, row(True), ()))

    def _admit_all(self, cell: Cell) -> None:
        """Find by columns what is known of the jobs of all shapes."""
        shapes = list(cell.shapes.values())[:CACHED_MAX]
        table = [self.row(s) for s in shapes]
        made: dict[tuple[_Held, tuple[int, ...]], tuple[list[tuple[Live, int]], Resolved]] = {}
        for shape, row, held in zip(shapes, table, held_by(self._admit_shapes, table), strict=True):
            key = (held, tuple([row[i] for i in held.bound]))
            known = made.get(key)
            if known is None:
                values = [(rule, clamped(rule, rule.value(row, ()))) for rule in held.rules]
                known = made[key] = (values, resolve(values))
            self._admissions[shape.key] = known

    def reason_of(self, rule: str) -> str:
        """What the author of a rule that denies a job says."""
        return next(r.reason for r in self.by_phase[Phase.ADMIT] if r.name == rule)

    def _limit(self, cell: Cell) -> None:
        """Lending and borrowing limits of accounts, as rules set them."""
        lend, changed = self.by_phase.get(Phase.LEND, []), False
        for account in cell.accounts.values():
            ruled: dict[str, dict[str, int]] = {"borrowing": {}, "lending": {}}
            for resource in account.ruleable() if lend else ():
                row = rows.of_account(self.names, account, resource)
                for slot, slots in self.ask(Phase.LEND, row)[0].items():
                    if slot in ruled:
                        ruled[slot][resource] = 1000 * slots
            if account.rule(ruled["borrowing"], ruled["lending"]):
                changed = True
                cell.show(account)
        if changed:
            cell.rebuild_quota()


def held_by(rules: Sequence[Live], table: Sequence[Row]) -> list[_Held]:
    """For each row the rules that hold for it; equal ones are one object."""
    if not table:
        return []
    packed = np.ascontiguousarray(np.packbits(masks(rules, table), axis=0).T)
    matched: dict[bytes, _Held] = {}
    found = []
    for bits in packed:
        key = bits.tobytes()
        held = matched.get(key)
        if held is None:
            flags = np.unpackbits(bits, count=len(rules)).tolist()
            held = matched[key] = _Held(list(compress(rules, flags)))
        found.append(held)
    return found


def masks(rules: Sequence[Live], table: Sequence[Row]) -> npt.NDArray[np.bool_]:
    """By rule and row: whether it holds, as far as the row alone tells."""
    columns = list(np.array(table, dtype=np.int64).T)
    found = np.empty((len(rules), len(table)), dtype=bool)
    for at, rule in enumerate(rules):
        found[at] = rule.static(columns, ())
    return found


def _versions(policy: Policy, shadowed: bool) -> list[tuple[int, tuple[int, int]]]:
    """The versions that count, and for which part of the queues."""
    trial, active = policy.trial, policy.active
    whole = (0, PPM)
    if trial is None or trial.mode == "all":
        return [(active, whole)] if active else []
    if trial.mode == "shadow":
        if shadowed:
            return [(trial.version, whole)]
        return [(active, whole)] if active else []
    old = [(active, (trial.slice_ppm, PPM))] if active else []
    return [*old, (trial.version, (0, trial.slice_ppm))]


def signals_read(version: Version) -> list[str]:
    """Signals that any part of the version reads."""
    read = (name for names in version.reads.values() for name in names)
    return [name for name in dict.fromkeys(read) if name.startswith("signal.")]


def _scoped(cell: Cell, scope: str, slice_ppm: tuple[int, int]) -> Scoped | None:
    """None: it does not count here."""
    kind, _, name = scope.partition("/")
    if kind == "global":
        return Scoped(None, 0, slice_ppm)
    if kind == "region":
        here = cell.pool.region.id if cell.pool.region is not None else cell.name
        return Scoped(None, 1, slice_ppm) if here == name else None
    account = cell.accounts.get(name)
    return Scoped(name, 1 + depth(account), slice_ppm) if account is not None else None
