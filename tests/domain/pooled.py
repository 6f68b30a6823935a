"""Regions that hear each other: cells for tests of hand-offs, with the letters between them."""

from __future__ import annotations

from typing import Any

from msgspec import Raw

from domain.cell import Cell
from domain.commands import (
    AcknowledgeHandoff,
    AdvertiseInventory,
    AnswerHandoff,
    CancelJob,
    Command,
    RequestRights,
    SendRights,
    SetQuota,
)
from domain.ledger import Accepted, Round
from domain.pool.commands import FenceRegion, GrantRights, SetPeers
from domain.pool.inventory import advert
from domain.pool.rights import MAX_GRANTS
from domain.pool.specs import Amount, HandoffRules, PeerSpec, Stock, Token
from domain.specs import Queue, Quota
from streams import outbox
from streams.outbox import Letter
from tests.domain.given import Given, job, node

RULES = HandoffRules(min_benefit_s=0)


class Regional(Given):
    """A region whose peers all speak through one actor each, named as the region."""

    def __init__(
        self, name: str, peers: tuple[str, ...], nodes: int = 1, slots: int = 1, **more: Any
    ) -> None:
        super().__init__(name)
        self.out: list[Letter] = []
        known = tuple(PeerSpec(region=p, actor=p) for p in peers if p != name)
        quota = {"accelerator": "h100", "nominal": 100, **more.pop("quota", {})}
        quotas = (Quota.model_validate(quota),)
        self.say(
            SetPeers(region=name, peers=known, **{"rules": RULES, **more}),
            SetQuota(account="a", quotas=quotas, queues=(Queue(queue="q"),)),
            *(node(f"{name}-{i}", slots=slots, path={"region": name}) for i in range(nodes)),
        )

    def say(self, *commands: Any, after_s: int = 0) -> Round:
        return self.kept(self.round(*commands, after_s=after_s))

    def hear(self, *letters: Letter, actor: str = "", id_: str = "", after_s: int = 0) -> Round:
        """Letters as they come in; with `id_` they are no duplicates of earlier ones."""
        accepted = []
        for letter in letters:
            source = actor or _sender(letter)
            self.offset += 1
            place = (0, self.offset - 1, id_ or letter.id, source, letter.type, source)
            accepted.append(Accepted(*place, self.now_ms, Raw(letter.body)))
        return self.kept(self.decide(accepted, after_s=after_s))

    def kept(self, round: Round) -> Round:
        said = outbox.letters(self.cell, round)
        assert said == outbox.letters(self.twin, round), "who only folds says the same"
        again = Cell.restore(self.cell.snapshot())
        assert again.digest() == self.cell.digest()
        assert outbox.standing(again) == outbox.standing(self.cell)
        self.out += said
        return round

    def take(self, kind: str) -> Letter:
        """The oldest letter of a kind that was not taken yet."""
        found = next(letter for letter in self.out if letter.type == kind)
        self.out.remove(found)
        return found

    def advert(self, to: str) -> Letter:
        return outbox.letter(self.cell, to, advert(self.cell))


def _sender(letter: Letter) -> str:
    region: str = outbox._any.decode(letter.body)["region"]
    return region


def _refusals() -> dict[str, tuple[tuple[Command, ...], Command]]:
    """By code: what is sent before, and what is refused with the code."""
    me: dict[str, Any] = {"region": "there", "epoch": 2}
    both = (PeerSpec(region="there", actor="someone"), PeerSpec(region="else", actor="else"))
    known = SetPeers(region="here", peers=both)
    stock = (Stock(accelerator="h100", cluster="c", free=(0,) * 8 + (9,)),)
    free = AdvertiseInventory(round=5, stock=stock, **me)
    token = Token(home="here", job="big", term=1, hop=0)
    yes = AnswerHandoff(token=token, offered_ms=1_000_000, prepared=True, **me)
    gone = (known, free, job("big", count=3, slots=8), yes)
    ack = AcknowledgeHandoff(token=token, **me)
    amount = Amount(account="a", accelerator="tpu", milli=1000)
    quota = Quota(accelerator="tpu", nominal=0, rights=True)
    shared = SetQuota(account="a", quotas=(quota,), queues=(Queue(queue="q"),))
    grant = GrantRights(grant="g", amount=amount)
    many = [GrantRights(grant=f"g{i}", amount=amount) for i in range(MAX_GRANTS)]
    limits = quota.model_copy(update={"nominal": 1})
    sent = SendRights(total=amount, **me)
    asked = RequestRights(amount=amount, asked_ms=1, **me)
    fence = FenceRegion(region="there")
    return {
        "region_is_fenced": ((known, fence), fence),
        "job_elsewhere": (gone, CancelJob(job="big")),
        "peer_in_use": (gone, SetPeers(region="here", peers=both[1:])),
        "region_is_set": ((known,), SetPeers(region="nowhere")),
        "region_is_set for an epoch": ((known,), SetPeers(region="here", epoch=2)),
        "unknown_peer": ((), free),
        "not_that_peer": ((known,), free.model_copy(update={"region": "else"})),
        "stale_epoch": ((known, free), free.model_copy(update={"epoch": 1})),
        "stale_inventory": ((known, free), free.model_copy(update={"round": 4})),
        "stale_token": ((known,), ack),
        "stale_token after the release": (gone, yes),
        "quota_has_rights": ((shared,), SetQuota(account="a", queues=shared.queues)),
        "quota_has_rights and no limits": ((), shared.model_copy(update={"quotas": (limits,)})),
        "no_such_rights": ((), grant),
        "too_many_grants": ((shared, *many), grant),
        "grant_exists": ((shared, grant), grant),
        "no_surplus": ((known, shared), asked),
        "stale_rights": ((known, shared, sent), sent),
    }


REFUSALS = _refusals()


def pair(**more: Any) -> tuple[Regional, Regional]:
    """Two regions of one slot each; each knows what the other has."""
    one, two = Regional("east", ("west",), **more), Regional("west", ("east",), **more)
    one.hear(two.advert("east"))
    two.hear(one.advert("west"))
    return one, two
