"""For those who run it: probes and metrics."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request

from projections.problems import Problem
from projections.reading import services_of
from projections.services import Services

router = APIRouter(tags=["health"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: Annotated[Services, Depends(services_of)]) -> dict[str, Any]:
    """200 iff the store answers, something was projected, and the process has no trouble."""
    trouble = list(services.trouble())
    applied = None
    try:
        applied = await services.store.applied(services.cell)
    except Exception as error:
        trouble.append(f"the store does not answer: {type(error).__name__}")
    if trouble:
        raise Problem(503, "not_ready", "; ".join(trouble))
    return {"status": "ok", "round": applied.round if applied else 0}


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    registry: CollectorRegistry = request.app.state.registry
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
