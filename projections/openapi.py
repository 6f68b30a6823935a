"""The OpenAPI document: parameters as FastAPI knows them, answers as the tables hold them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from domain.commands import COMMANDS
from projections.tables import TABLES, Table

Json = dict[str, Any]

PAGES: Final = {
    "/v1/accounts": "accounts",
    "/v1/queues": "queues",
    "/v1/nodes": "nodes",
    "/v1/capacity": "capacity",
    "/v1/reservations": "reservations",
    "/v1/policies": "policies",
    "/v1/shapes": "shapes",
    "/v1/jobs": "jobs",
    "/v1/rounds": "rounds",
    "/v1/decisions": "decisions",
}
ONES: Final = {
    "/v1/summary": "summary",
    "/v1/accounts/{account}": "accounts",
    "/v1/nodes/{node}": "nodes",
    "/v1/reservations/{reservation}": "reservations",
    "/v1/policies/{policy}": "policies",
    "/v1/jobs/{job}": "jobs",
    "/v1/rounds/{number}": "rounds",
    "/v1/commands/{source}/{id}": "outcomes",
}
FRESH: Final = ("round", "at_ms")
BESIDES: Final[dict[str, tuple[str, ...]]] = {
    "/v1/jobs/{job}": ("round", "at_ms", "waiting", "rules", "events"),
    "/v1/rounds/{number}": ("reflects",),
    "/v1/commands/{source}/{id}": ("reflects",),
}
"""What an answer of one row holds besides the row, if not FRESH alone."""
LATER: Final = ("rules",)
"""What answers of older releases do not have."""
HIDDEN: Final = ("cell", "bucket")
_TYPES: Final[dict[str, Json]] = {
    "text": {"type": ["string", "null"]},
    "int": {"type": ["integer", "null"], "format": "int64"},
    "bool": {"type": "boolean"},
    "json": {},
}
_ROUND: Final[Json] = {"type": "integer", "description": "The round that the answer reflects."}
_BESIDES: Final[Json] = {
    "round": _ROUND,
    "reflects": _ROUND,
    "at_ms": {"type": "integer", "description": "That round's time."},
    "waiting": {"type": ["object", "null"], "description": "Why it waits, if it does."},
    "rules": {
        "type": "array",
        "items": {"type": "object"},
        "description": "Rules of policies that hold for it, and whether each counts.",
    },
    "events": {"type": "array", "items": {"type": "object"}, "description": "All, oldest first."},
}
_PROBLEM: Final[Json] = {
    "description": "RFC 9457 problem document",
    "content": {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
    },
}


def document(app: FastAPI) -> Json:
    """The whole document, with every schema inside it."""
    made = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = _problem()
    for name in sorted({*PAGES.values(), *ONES.values()}):
        schemas[name] = _row(TABLES[name])
    for path, name in PAGES.items():
        _answer(made["paths"][path]["get"], _page(name))
    for path, name in ONES.items():
        _answer(made["paths"][path]["get"], _one(path, name))
    schemas.update(_commands())
    _submission(made["paths"]["/v1/commands/{type}"]["post"])
    for operations in made["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = _PROBLEM
    made["components"]["securitySchemes"] = {
        "reader": {"type": "http", "scheme": "bearer", "description": "If the API is not open."}
    }
    made["security"] = [{}, {"reader": []}]
    return made


def _row(table: Table) -> Json:
    columns = {n: _TYPES[kind] for n, kind in table.columns.items() if n not in HIDDEN}
    return {
        "title": table.name,
        "type": "object",
        "properties": columns,
        "required": [n for n in table.key if n not in HIDDEN],
    }


def _page(name: str) -> Json:
    return {
        "type": "object",
        "required": ["round", "at_ms", "items", "next"],
        "properties": {
            **{n: _BESIDES[n] for n in FRESH},
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
            "next": {"type": ["string", "null"], "description": "Cursor of the next page."},
        },
    }


def _one(path: str, name: str) -> Json:
    names = BESIDES.get(path, FRESH)
    besides = {
        "type": "object",
        "required": [n for n in names if n not in LATER],
        "properties": {n: _BESIDES[n] for n in names},
    }
    return {"allOf": [{"$ref": f"#/components/schemas/{name}"}, besides]}


def _answer(operation: Json, schema: Json) -> None:
    headers = {
        "ETag": {"schema": {"type": "string"}},
        "Aquifer-Round": {"schema": _ROUND},
    }
    good = operation["responses"]["200"]
    good["content"] = {"application/json": {"schema": schema}}
    good["headers"] = headers
    operation["responses"]["304"] = {
        "description": "Nothing changed since the answer with this If-None-Match",
        "headers": headers,
    }


def _commands() -> dict[str, Json]:
    models: list[tuple[Any, JsonSchemaMode]] = [(m, "validation") for m in COMMANDS.values()]
    _, made = models_json_schema(models, ref_template="#/components/schemas/{model}")
    found: dict[str, Json] = made["$defs"]
    return found


def _submission(operation: Json) -> None:
    bodies = [{"$ref": f"#/components/schemas/{name}"} for name in sorted(COMMANDS)]
    operation["requestBody"] = {
        "required": True,
        "description": "The command that the path names; `type` may be left out.",
        "content": {"application/json": {"schema": {"anyOf": bodies}}},
    }


def _problem() -> Json:
    text = {"type": "string"}
    return {
        "title": "Problem",
        "type": "object",
        "required": ["type", "title", "status", "code", "detail"],
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "code": {"type": "string", "description": "What programs can rely on."},
            "detail": text,
            "fields": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"field": text, "rule": text},
                },
            },
        },
    }
