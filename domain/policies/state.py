"""What a cell remembers of policies: their versions, trials and parameters, and the signals."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from msgspec import msgpack

from domain.policies.documents import PolicyDocument
from domain.policies.syntax import Node, attributes, from_json, to_json
from domain.policies.validation import Trees

VERSIONS_KEPT: Final = 16


class Trial(NamedTuple):
    """A version whose gates are watched."""

    version: int
    mode: str
    """shadow, slice, or all: it is the one in force."""
    slice_ppm: int
    until_ms: int
    then_activate: bool
    baseline: dict[str, int]


class Move(NamedTuple):
    """The last move of a controller."""

    at_ms: int
    up: bool
    step: int
    pause_ms: int


class Version:
    """A version that was drafted, and what it means."""

    __slots__ = ("_reads", "author", "document", "replayed", "status", "trees")

    def __init__(self, document: PolicyDocument, author: str) -> None:
        self.document = document
        self.author = author
        self.status = "drafted"
        """drafted, validated, canary, active, superseded, or rolled_back."""
        self.replayed = False
        self.trees: Trees = {}
        self._reads: dict[str, tuple[str, ...]] | None = None

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """By place in the document: signals and parameters that are read there."""
        if self._reads is None:
            self._reads = {place: _inputs(tree) for place, tree in self.trees.items()}
        return self._reads

    def state(self) -> tuple[object, ...]:
        trees = msgpack.encode({place: to_json(tree) for place, tree in sorted(self.trees.items())})
        document = self.document.model_dump_json(exclude_defaults=True)
        return (document, self.author, self.status, self.replayed, trees)

    @staticmethod
    def load(document: str, author: str, status: str, replayed: bool, trees: bytes) -> Version:
        version = Version(PolicyDocument.model_validate_json(document), author)
        version.status, version.replayed = status, replayed
        version.trees = {place: from_json(tree) for place, tree in msgpack.decode(trees).items()}
        return version


def _inputs(tree: Node) -> tuple[str, ...]:
    names = (str(a.value) + (f"[{a.args[0].value}]" if a.args else "") for a in attributes(tree))
    return tuple(dict.fromkeys(n for n in names if n.startswith(("signal.", "param."))))


class Policy:
    """All versions of a policy, of which one may be in force and one on trial."""

    __slots__ = ("active", "id", "mark", "moved", "moves", "past", "trial", "versions")
    kind = "policy"

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.versions: dict[int, Version] = {}
        self.active = 0
        """0: none."""
        self.past: list[int] = []
        """Versions that were in force before, latest last."""
        self.trial: Trial | None = None
        self.moved: dict[str, int] = {}
        """Parameters of the version in force that controllers have moved."""
        self.moves: dict[str, Move] = {}
        """By controller."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            [(number, *v.state()) for number, v in sorted(self.versions.items())],
            self.active,
            self.past,
            self.trial,
            sorted(self.moved.items()),
            sorted(self.moves.items()),
        )

    @staticmethod
    def load(state: list[Any]) -> Policy:
        id_, versions, active, past, trial, moved, moves = state
        policy = Policy(id_)
        policy.versions = {number: Version.load(*rest) for number, *rest in versions}
        policy.active, policy.past = active, list(past)
        policy.trial = Trial(*trial) if trial is not None else None
        policy.moved = dict(moved)
        policy.moves = {name: Move(*move) for name, move in moves}
        return policy

    def params(self, version: int) -> dict[str, int]:
        """By name: what rules of the version read as its parameters."""
        values = {p.param: p.value for p in self.versions[version].document.params}
        if version == self.active:
            values.update(self.moved)
        return values

    def forget(self) -> None:
        """Drop the oldest versions that neither count nor may count again."""
        keep = {self.active, self.trial.version if self.trial else 0, *self.past}
        for number in [n for n in sorted(self.versions) if n not in keep]:
            if len(self.versions) <= VERSIONS_KEPT:
                return
            del self.versions[number]


class Signals:
    """What rules read, as it was when it was frozen; and what others have reported since."""

    __slots__ = ("mark", "reported", "values")
    kind = "signals"

    def __init__(self) -> None:
        self.values: dict[str, int] = {}
        """By name, with the entry where it has one: `signal.reported[price]`."""
        self.reported: dict[str, int] = {}
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (sorted(self.values.items()), sorted(self.reported.items()))
