"""Questions to the peers' read APIs: a pool answers as far as its regions do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import httpx

from aquifer.relaying import PeerWay, client_of

ASK_S: Final = 2


class Peers:
    """Each is asked at once; one that is slow, gone or wrong keeps no other from answering."""

    def __init__(self, ways: Mapping[str, PeerWay]) -> None:
        self._ways = ways

    async def summaries(self) -> list[dict[str, Any]]:
        asked = (self._summary(region, way) for region, way in sorted(self._ways.items()))
        return list(await asyncio.gather(*asked))

    async def _summary(self, region: str, way: PeerWay) -> dict[str, Any]:
        url = way.url or way.read
        if url is None:
            return {"region": region, "answers": False, "why": "its read API is not known here"}
        try:
            async with asyncio.timeout(ASK_S), client_of(way, url, ASK_S) as client:
                answer = await client.get("/v1/summary")
                answer.raise_for_status()
                body = answer.json()
                return {**body, "region": region, "answers": True, "at_ms": int(body["at_ms"])}
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            why = f"{type(error).__name__}: {error}".strip(": ")
            return {"region": region, "answers": False, "why": why}
