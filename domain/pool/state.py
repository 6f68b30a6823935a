"""What a region knows of the pool: itself, its peers, and the jobs that come and go.

All of it is empty in a cell that has no peers.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any, Final

from domain.pool.facts import TokenOf
from domain.pool.guards import Copy, Fence, Guard, Guards
from domain.pool.rights import Rights
from domain.pool.specs import HandoffRules, Token

if TYPE_CHECKING:
    from domain.cell import Cell
    from domain.commands import FromPeer
    from domain.jobs import Job

MAX_FLIGHTS: Final = 10_000
"""Jobs released and not yet acknowledged; at the bound nothing more is offered."""
MAX_TOMBSTONES: Final = 1_000_000
"""Jobs that left and are remembered; at the bound nothing comes or goes."""
KEEP_OWN_MS: Final = 90 * 86_400_000
"""How long the name of a job that was handed over stays taken at its home."""


class Region:
    """The region that the cell is, and its rules."""

    __slots__ = ("datasets", "epoch", "id", "mark", "rules")
    kind = "region"

    def __init__(self, id_: str, epoch: int, rules: HandoffRules) -> None:
        self.id = id_
        self.epoch = epoch
        self.rules = rules
        self.datasets: list[str] = []
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.epoch, self.rules.model_dump_json(), self.datasets)


class Peer:
    """Another region, as far as is known here."""

    __slots__ = (
        "actor",
        "datasets",
        "distance_s",
        "epoch",
        "given",
        "heard_ms",
        "id",
        "mark",
        "mib_per_s",
        "outlook",
        "rests",
        "round",
        "stock",
        "surplus",
        "votes",
    )
    kind = "peer"

    def __init__(self, id_: str) -> None:
        self.id = id_
        self.actor = ""
        self.distance_s = 0
        self.mib_per_s = 1
        self.epoch = 0
        """The highest that was heard."""
        self.round = 0
        self.heard_ms = 0
        """When its last inventory came, by this region's clock."""
        self.stock: dict[tuple[str, str], list[int]] = {}
        """Nodes by free slots, of each type and cluster, less what was offered since."""
        self.outlook: dict[str, dict[str, Any]] = {}
        """By type, as it was told last (`domain.pool.specs.Outlook`)."""
        self.datasets: list[str] = []
        self.surplus: dict[tuple[str, str], int] = {}
        """Rights to spare by account and type."""
        self.rests: dict[int, int] = {}
        """Until when no job of a shape is offered to it."""
        self.given: dict[str, int] = {}
        """Regions that the peer may hold for lost, as far as this one goes; since when."""
        self.votes: dict[str, int] = {}
        """Regions that this one may hold for lost, as far as the peer goes."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.actor,
            self.distance_s,
            self.mib_per_s,
            self.epoch,
            self.round,
            self.heard_ms,
            sorted(self.stock.items()),
            sorted(self.surplus.items()),
            sorted(self.rests.items()),
            sorted(self.given.items()),
            sorted(self.votes.items()),
            sorted(self.outlook.items()),
            self.datasets,
        )


class Offer:
    """A job that waits here and was offered to a peer."""

    __slots__ = ("id", "made_ms", "mark", "shape", "to", "token", "until_ms")
    kind = "offer"

    def __init__(
        self, job: str, to: str, token: TokenOf, shape: int, made_ms: int, until_ms: int
    ) -> None:
        self.id = job
        self.to = to
        self.token = token
        """As it was when it was offered: the job may have ended since."""
        self.shape = shape
        self.made_ms = made_ms
        self.until_ms = until_ms
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.to, self.token, self.shape, self.made_ms, self.until_ms)


class Passport:
    """Of a job that came from a peer, or for which slots are held until it comes."""

    __slots__ = (
        "confirmed",
        "home",
        "hop",
        "id",
        "mark",
        "name",
        "offered_ms",
        "owners",
        "source",
        "term",
        "until_ms",
    )
    kind = "passport"

    def __init__(self, id_: str, token: TokenOf, source: str) -> None:
        self.id = id_
        self.home, self.name, self.term, self.hop = token
        """While slots are held for it, the hop is that of the offer."""
        self.source = source
        self.offered_ms = 0
        self.until_ms = 0
        """Until then slots are held for it; 0: the job is here."""
        self.owners: list[tuple[str, int]] = []
        self.confirmed = False
        """The source knows that it came."""
        self.mark = 0

    @property
    def token(self) -> TokenOf:
        return (self.home, self.name, self.term, self.hop)

    def state(self) -> tuple[object, ...]:
        return (
            self.id,
            self.token,
            self.source,
            self.offered_ms,
            self.until_ms,
            self.owners,
            self.confirmed,
        )


class Flight:
    """A job that was released: this ledger holds it until the peer says that it has it."""

    __slots__ = ("body", "id", "mark", "to", "token")
    kind = "flight"

    def __init__(self, id_: str, token: TokenOf, to: str, body: bytes) -> None:
        self.id = id_
        self.token = token
        self.to = to
        self.body = body
        """The message that hands it over."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.token, self.to, self.body)


class Tombstone:
    """Of a job that was here and is not any more: the newest token seen, and where it went."""

    __slots__ = ("confirmed", "id", "mark", "since_ms", "source", "to", "token")
    kind = "tombstone"

    def __init__(self, id_: str, token: TokenOf, to: str, since_ms: int) -> None:
        self.id = id_
        self.token = token
        self.to = to
        """Empty if it ended here."""
        self.since_ms = since_ms
        self.source = ""
        self.confirmed = True
        """False while the source may still say that it released the job."""
        self.mark = 0

    def state(self) -> tuple[object, ...]:
        return (self.id, self.token, self.to, self.since_ms, self.source, self.confirmed)


PoolEntity = Region | Peer | Offer | Passport | Flight | Tombstone | Rights | Guard | Copy | Fence


class Pool:
    def __init__(self) -> None:
        self.region: Region | None = None
        self.peers: dict[str, Peer] = {}
        self.offers: dict[str, Offer] = {}
        self.passports: dict[str, Passport] = {}
        self.flights: dict[str, Flight] = {}
        self.tombstones: dict[str, Tombstone] = {}
        self.rights: dict[tuple[str, str], Rights] = {}
        self.guards = Guards()
        # Derived:
        self.prepared: dict[str, Passport] = {}
        """Passports of jobs for which slots are held."""
        self._stale: list[tuple[int, str]] = []

    @property
    def own(self) -> Region:
        assert self.region is not None, "only a region has peers"
        return self.region

    # --- tokens -----------------------------------------------------------------------------------

    def id_of(self, token: TokenOf) -> str:
        """Name of the job in this cell: another region's cannot be that of one submitted here."""
        home, name, term, _ = token
        if home == self.own.id and term == self.own.epoch:
            return name
        return f"{name}@{home}" if term == 1 else f"{name}@{home}@{term}"

    def token_of(self, id_: str) -> TokenOf:
        """Of a job that is here."""
        passport = self.passports.get(id_)
        return passport.token if passport else (self.own.id, id_, self.own.epoch, 0)

    def knows(self, id_: str) -> bool:
        """True iff the name is still taken by a job that left or ended here."""
        return id_ in self.tombstones or id_ in self.guards.of

    def seen(self, id_: str) -> int:
        """The newest hop that was seen of the job; -1: none was."""
        passport, tombstone = self.passports.get(id_), self.tombstones.get(id_)
        if passport is not None and not passport.until_ms:
            return passport.hop
        return tombstone.token[3] if tombstone is not None else -1

    # --- what the fold does -----------------------------------------------------------------------

    def heard(self, cell: Cell, command: FromPeer) -> Peer:
        """A higher epoch means that the peer's former ledger will confirm nothing any more."""
        peer = self.peers[command.region]
        if command.epoch > peer.epoch:
            peer.epoch, peer.round, peer.given, peer.votes = command.epoch, 0, {}, {}
            cell.touch(peer)
            self.guards.lost_by(cell, peer.id)
            for kept in self.unconfirmed():
                if kept.source == peer.id:
                    self.confirmed(cell, kept)
        return peer

    def gone(self, cell: Cell, region: str) -> None:
        """The region will not come back: nobody has to hear from it, or to wait for it."""
        self.guards.gone(cell, region)
        for kept in self.unconfirmed():
            if kept.source == region:
                self.confirmed(cell, kept)
        for peer in self.peers.values():
            if peer.given.pop(region, None) is not None:
                cell.touch(peer)

    def bury(self, cell: Cell, id_: str, token: TokenOf, to: str) -> None:
        """The job has left: remember its token, and forget that it was here."""
        tombstone = Tombstone(id_, token, to, cell.now_ms)
        old, passport = self.tombstones.pop(id_, None), self.passports.pop(id_, None)
        if old is not None:
            cell.left(old)
        if passport is not None:
            tombstone.source, tombstone.confirmed = passport.source, passport.confirmed
            cell.left(passport)
        self.tombstones[id_] = tombstone
        self._forget_later(cell, tombstone)
        cell.touch(tombstone)

    def ended(self, cell: Cell, job: Job) -> None:
        """The job came to its end here."""
        self.guards.ended(cell, job.id)
        if job.id in self.passports:
            self.bury(cell, job.id, self.token_of(job.id), "")

    def _forget_later(self, cell: Cell, tombstone: Tombstone) -> None:
        heappush(self._stale, (self._stale_ms(cell, tombstone), tombstone.id))

    def time_tombstones(self, cell: Cell) -> None:
        """The time for which they are kept is another one."""
        self._stale = [(self._stale_ms(cell, t), t.id) for t in self.tombstones.values()]
        heapify(self._stale)

    def _stale_ms(self, cell: Cell, tombstone: Tombstone) -> int:
        own = self.region is not None and tombstone.token[0] == self.region.id
        keep_ms = KEEP_OWN_MS if own else cell.policy.duplicate_window_s * 1000
        return tombstone.since_ms + keep_ms

    def is_gone(self, region: str, epoch: int) -> bool:
        """True iff the region is held for lost, or its ledger of that epoch is."""
        peer = self.peers.get(region)
        return self.guards.fenced(region) or (peer is not None and peer.epoch > epoch)

    def forget(self, cell: Cell) -> None:
        """Forget jobs that left long ago, once nobody can speak of their tokens any more."""
        self.guards.forget(cell, cell.now_ms - cell.policy.duplicate_window_s * 1000)
        while self._stale and self._stale[0][0] <= cell.now_ms:
            id_ = heappop(self._stale)[1]
            tombstone = self.tombstones.get(id_)
            if tombstone is None or not tombstone.confirmed:
                continue
            if self._stale_ms(cell, tombstone) <= cell.now_ms:
                del self.tombstones[id_]
                cell.left(tombstone)
            else:
                self._forget_later(cell, tombstone)

    def unconfirmed(self) -> list[Passport | Tombstone]:
        """Jobs whose source does not know yet that they came."""
        found: list[Passport | Tombstone] = [
            p for p in self.passports.values() if not p.until_ms and not p.confirmed
        ]
        found += (t for t in self.tombstones.values() if not t.confirmed)
        return sorted(found, key=lambda kept: (kept.id, kept.kind))

    def doubt_ms(self, peer: Peer) -> int | None:
        """When the peer is doubted if it stays silent; None: never, as nothing depends on it."""
        lost_s = self.own.rules.lost_s
        if not lost_s or not peer.heard_ms or len(self.peers) < 2:
            return None
        if peer.id in self.guards.fences or not self.guards.ties(peer.id):
            return None
        return peer.heard_ms + 1000 * lost_s

    def confirmed(self, cell: Cell, kept: Passport | Tombstone) -> None:
        kept.confirmed = True
        cell.touch(kept)
        if isinstance(kept, Tombstone):
            self._forget_later(cell, kept)

    def next_ms(self, now_ms: int) -> int | None:
        """When an offer or a held place falls due, or a peer has been silent for too long."""
        moments = [o.until_ms for o in self.offers.values()]
        moments += [p.until_ms for p in self.prepared.values()]
        for peer in self.peers.values():
            doubt_ms = self.doubt_ms(peer)
            if doubt_ms is not None:
                moments.append(doubt_ms)
        if any(c and self.is_gone(*key) for key, c in self.guards.copies_of.items()):
            moments.append(now_ms)
        return min(moments) if moments else None

    # --- snapshots --------------------------------------------------------------------------------

    def entities(self) -> list[PoolEntity]:
        found: list[PoolEntity] = [self.region] if self.region is not None else []
        found += self.peers.values()
        found += self.offers.values()
        found += self.passports.values()
        found += self.flights.values()
        found += self.tombstones.values()
        found += self.rights.values()
        found += self.guards.of.values()
        found += self.guards.copies.values()
        found += self.guards.fences.values()
        return found

    def restore(self, cell: Cell, states: list[tuple[str, list[Any]]]) -> None:
        """Rebuild from the states of the entities; the cell's jobs are there already."""
        make: dict[str, Any] = {
            "region": self._load_region,
            "peer": self._load_peer,
            "offer": self._load_offer,
            "passport": self._load_passport,
            "flight": self._load_flight,
            "tombstone": self._load_tombstone,
            "rights": self._load_rights,
            "guard": self._load_guard,
            "copy": self._load_copy,
            "fence": self._load_fence,
        }
        for kind, state in states:
            make[kind](cell, *state)

    def _load_region(
        self, cell: Cell, id_: str, epoch: int, rules: str, datasets: list[str]
    ) -> None:
        self.region = Region(id_, epoch, HandoffRules.model_validate_json(rules))
        self.region.datasets = datasets

    def _load_peer(self, cell: Cell, id_: str, *state: Any) -> None:
        peer = self.peers[id_] = Peer(id_)
        peer.actor, peer.distance_s, peer.mib_per_s, peer.epoch, peer.round, peer.heard_ms = state[
            :6
        ]
        stock, surplus, rests, given, votes, outlook, peer.datasets = state[6:]
        peer.stock = {tuple(key): counts for key, counts in stock}
        peer.surplus = {tuple(key): milli for key, milli in surplus}
        peer.rests = dict(rests)
        peer.given, peer.votes, peer.outlook = dict(given), dict(votes), dict(outlook)

    def _load_offer(self, cell: Cell, id_: str, to: str, token: Any, *state: Any) -> None:
        self.offers[id_] = Offer(id_, to, tuple(token), *state)

    def _load_passport(self, cell: Cell, id_: str, token: Any, source: str, *state: Any) -> None:
        passport = self.passports[id_] = Passport(id_, tuple(token), source)
        passport.offered_ms, passport.until_ms, owners, passport.confirmed = state
        passport.owners = [(region, left_ms) for region, left_ms in owners]
        if passport.until_ms:
            self.prepared[id_] = passport
            run = cell.jobs[id_].run
            assert run is not None, "slots are held for it"
            del cell.claims[run]

    def _load_flight(self, cell: Cell, id_: str, token: Any, to: str, body: bytes) -> None:
        self.flights[id_] = Flight(id_, tuple(token), to, body)

    def _load_tombstone(self, cell: Cell, id_: str, token: Any, *state: Any) -> None:
        tombstone = self.tombstones[id_] = Tombstone(id_, tuple(token), *state[:2])
        tombstone.source, tombstone.confirmed = state[2:]
        self._forget_later(cell, tombstone)

    def _load_guard(self, cell: Cell, *state: Any) -> None:
        self.guards.put(Guard.load(*state))

    def _load_copy(self, cell: Cell, *state: Any) -> None:
        self.guards.keep(Copy.load(*state))

    def _load_fence(self, cell: Cell, *state: Any) -> None:
        fence = Fence.load(*state)
        self.guards.fences[fence.id] = fence

    def _load_rights(self, cell: Cell, account: str, accelerator: str, *state: Any) -> None:
        self.rights[account, accelerator] = Rights.load(account, accelerator, *state)


def after(token: TokenOf) -> TokenOf:
    """The token of whoever has the job next."""
    home, name, term, hop = token
    return (home, name, term, hop + 1)


def as_token(token: TokenOf) -> Token:
    home, job, term, hop = token
    return Token(home=home, job=job, term=term, hop=hop)


def of_token(token: Token) -> TokenOf:
    return (token.home, token.job, token.term, token.hop)
