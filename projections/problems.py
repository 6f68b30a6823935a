"""Errors over HTTP: RFC 9457 problem documents, with a code that programs can rely on."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from projections.cache import Remembered


class Problem(Exception):
    """Ends a request with a problem document."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = headers or {}
        self.more = more


class NotModified(Exception):
    """The caller has what it asks for already."""

    def __init__(self, headers: dict[str, str]) -> None:
        super().__init__("not modified")
        self.headers = headers


def document(problem: Problem) -> JSONResponse:
    body = {
        "type": f"urn:aquifer:problem:{problem.code}",
        "title": problem.code.replace("_", " "),
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        **problem.more,
    }
    return JSONResponse(
        body, problem.status, problem.headers, media_type="application/problem+json"
    )


def fields_of(error: ValidationError | RequestValidationError) -> list[dict[str, str]]:
    """The fields that break a rule, and the rule; never the value."""
    return [
        {"field": ".".join(str(part) for part in e["loc"]), "rule": str(e["msg"])}
        for e in error.errors()
    ]


def install(app: FastAPI) -> None:
    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return document(error)

    @app.exception_handler(NotModified)
    async def not_modified(request: Request, error: NotModified) -> Response:
        return Response(status_code=304, headers=error.headers)

    @app.exception_handler(Remembered)
    async def remembered(request: Request, error: Remembered) -> Response:
        return Response(error.body, headers=error.headers, media_type="application/json")

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        detail = "a parameter breaks its rule"
        return document(Problem(400, "invalid_parameter", detail, fields=fields_of(error)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
        return document(Problem(error.status_code, code, str(error.detail)))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        return document(Problem(500, "internal_error", "the request could not be answered"))
