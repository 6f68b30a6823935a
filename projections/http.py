"""The read API: FastAPI over a store."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from projections import openapi, problems
from projections.routes import commands, health, history, jobs, pool, promises, state, usage
from projections.services import Services

VERSION: Final = "1"
"""Of the API, as in its paths; within it answers only gain fields."""
PAGES: Final = Path(__file__).parent / "dashboard"
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(services: Services) -> FastAPI:
    """The app; it owns nothing: who made the services closes them."""
    app = _routed()
    app.state.services = services
    app.state.registry = CollectorRegistry()
    described = openapi.document(app)
    app.openapi = lambda: described  # type: ignore[method-assign]
    problems.install(app)
    _measure(app, services)
    _pages(app)
    return app


def describe() -> dict[str, Any]:
    """The OpenAPI document of every such app."""
    return openapi.document(_routed())


def _routed() -> FastAPI:
    app = FastAPI(
        title="Aquifer",
        summary="Which work runs on which GPU and NPU capacity, and why.",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    for part in (state, jobs, usage, promises, pool, history, commands, health):
        app.include_router(part.router)
    app.include_router(pool.asked)
    return app


def _pages(app: FastAPI) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> FileResponse:
        return FileResponse(PAGES / "index.html")

    app.mount("/static", StaticFiles(directory=PAGES), name="static")


def _measure(app: FastAPI, services: Services) -> None:
    registry: CollectorRegistry = app.state.registry
    requests = Counter(
        "aquifer_http_requests", "Requests by route.", ("route", "status"), registry=registry
    )
    seconds = Histogram(
        "aquifer_http_request_seconds", "Time to answer.", ("route",), registry=registry
    )
    rounds = Gauge("aquifer_applied_round", "Round of the last answer.", registry=registry)
    for name, read in services.gauges.items():
        Gauge(name, name.replace("_", " "), registry=registry).set_function(read)

    @app.middleware("http")
    async def measured(
        request: Request, go_on: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        begin = time.perf_counter()
        response = await go_on(request)
        route = getattr(request.scope.get("route"), "path", "none")
        requests.labels(route, str(response.status_code)).inc()
        seconds.labels(route).observe(time.perf_counter() - begin)
        reflected = response.headers.get("aquifer-round")
        if reflected is not None:
            rounds.set(int(reflected))
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        return response
