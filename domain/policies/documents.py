"""A policy as its author writes it: one document, sent as a command, kept in the ledger."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from domain.policies.attributes import Phase, Unit
from domain.specs import Model, Name, Text

Source = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
"""An expression."""
Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
Field_ = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Integer = Annotated[int, Field(ge=-(1 << 40), le=1 << 40)]
Version = Annotated[int, Field(ge=1, le=1_000_000_000)]
ScopeName = Annotated[
    str,
    StringConstraints(pattern=r"^(global|(region|account)/[A-Za-z0-9][A-Za-z0-9._-]{0,127})$"),
]
Given = Annotated[
    dict[str, int | bool | str | tuple[str, ...] | dict[str, str]], Field(max_length=64)
]


class Parameter(Model):
    """A number that rules read as `param.NAME`, and that controllers may move within bounds."""

    param: Field_
    value: Integer
    min: Integer
    max: Integer
    unit: Unit = ""

    @model_validator(mode="after")
    def _value_is_within_its_bounds(self) -> Self:
        if not self.min <= self.value <= self.max:
            raise ValueError("min <= value <= max must hold")
        return self


Do = Literal[
    "deny", "tier", "priority", "ceiling", "after_wait", "boost", "share", "prefer", "protect",
    "patience", "loss", "lending", "borrowing", "threshold", "replicas",
]  # fmt: skip


class Effect(Model):
    """What a rule does when it holds; which effects there are depends on its phase."""

    do: Do
    value: Annotated[int, Field(ge=-(1 << 40), le=1 << 40)] | Source | None = None
    """A number or an expression; for `tier` its name."""
    band: Annotated[int, Field(ge=0, le=2)] = 1
    """Of `prefer`: a lower band outweighs all of the higher ones; jobs' own wishes stand in 1."""
    accelerator: Name | None = None
    """Of `after_wait`: the flavour that is considered only after that long."""
    reason: Text = ""


class Rule(Model):
    rule: Id
    phase: Phase
    when: Source = "true"
    then: Effect
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Of two rules of equally specific scope that set the same, the higher one counts."""
    locked: bool = False
    """No rule of a more specific scope may set what this one sets."""


class Controller(Model):
    """Moves one parameter by steps while what it watches is out of its band."""

    controller: Id
    param: Field_
    watch: Source
    """An expression over signals."""
    low: Integer
    high: Integer
    """Between the two nothing moves; that gap is the hysteresis."""
    step: Annotated[int, Field(ge=1, le=1 << 40)]
    raise_when: Literal["high", "low"]
    """Which side raises the parameter; the other one lowers it."""
    every_s: Annotated[int, Field(ge=60, le=86_400)] = 300
    """It moves no more often."""
    damped: bool = False
    """Each reversal of its direction halves its step and doubles its pause, until it rests."""

    @model_validator(mode="after")
    def _there_is_a_gap(self) -> Self:
        if self.low >= self.high:
            raise ValueError("low must be below high: the gap is the hysteresis")
        return self


class Gate(Model):
    """What has to hold while the version is on trial, or it is rolled back at once."""

    gate: Id
    watch: Source
    """An expression over signals."""
    at_most: Integer | None = None
    at_least: Integer | None = None
    worse_by: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    """It may exceed what it was when the trial began by this much."""

    @model_validator(mode="after")
    def _it_has_one_bound(self) -> Self:
        if sum(b is not None for b in (self.at_most, self.at_least, self.worse_by)) != 1:
            raise ValueError("one of at_most, at_least and worse_by")
        return self


class Case(Model):
    """A test that travels with the policy: what its rules do in a given situation."""

    test: Text
    phase: Phase
    given: Given = {}
    """Attributes, signals and parameters by name; all else is as unset."""
    expect: Annotated[dict[str, int | bool | str], Field(max_length=16)]
    """By effect: the value; for `deny` true or false, for `prefer` the sum in `prefer.BAND`."""


class PolicyDocument(Model):
    """Rules that count together, with their parameters and the tests that they pass."""

    policy: Id
    version: Version
    title: Text = ""
    scope: ScopeName = "global"
    """global, region/NAME, or account/NAME for the account and all below it."""
    when: Source = "true"
    """Over signals and parameters: all rules rest while it is false."""
    params: Annotated[tuple[Parameter, ...], Field(max_length=32)] = ()
    rules: Annotated[tuple[Rule, ...], Field(max_length=256)] = ()
    controllers: Annotated[tuple[Controller, ...], Field(max_length=16)] = ()
    gates: Annotated[tuple[Gate, ...], Field(max_length=16)] = ()
    tests: Annotated[tuple[Case, ...], Field(max_length=64)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        for names in (
            [p.param for p in self.params],
            [r.rule for r in self.rules],
            [c.controller for c in self.controllers],
            [g.gate for g in self.gates],
        ):
            if len(set(names)) != len(names):
                raise ValueError("params, rules, controllers and gates have different names")
        return self


BANDS: Final = 3
