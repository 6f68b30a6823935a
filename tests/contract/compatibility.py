"""What a change of a schema breaks. Pure: JSON documents in, sentences out.

`narrowed` is one direction: what was valid and no longer is, or would mean something else. Those
who send are served by it. Those who read are served by the same question asked backwards, but for
additions, which they do not look at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

Schema = Mapping[str, Any]

TEXTS: Final = {"$schema", "$defs", "title", "description", "discriminator"}
"""Keywords that allow and forbid nothing."""
LEAST: Final = ("minimum", "minLength", "minItems", "minProperties")
MOST: Final = ("maximum", "maxLength", "maxItems", "maxProperties")
EVERYTHING: Final[Schema] = {}
SENT: Final = ("commands/", "cmd.", "request ")
"""What the names of documents begin with that others send to us."""
_VERSION: Final = re.compile(r"(?P<before>.*)\.v(?P<number>[0-9]+)(?P<after>\..*|)")


def broken(released: Mapping[str, Schema], current: Mapping[str, Schema]) -> list[str]:
    """What the current documents, by path, break of the released ones.

    A document may be gone if one of a later version has come. Commands are sent by others; all
    else is read by others, and again by ourselves.
    """
    found: list[str] = []
    for path, old in released.items():
        new = current.get(path)
        if path in PARTS:
            found += broken(PARTS[path](old), PARTS[path](new or {}))
        elif new is None:
            found += [] if _succeeded(path, current) else [f"{path}: it is gone"]
        else:
            found += [f"{path}: {fault}" for fault in narrowed(old, new)]
            if not path.startswith(SENT):
                back = narrowed(new, old, additions=True)
                found += [f"{path}: for its readers, {fault}" for fault in back]
    return found


def _succeeded(path: str, current: Mapping[str, Schema]) -> bool:
    mine = _VERSION.fullmatch(path)
    if mine is None:
        return False
    for match in filter(None, map(_VERSION.fullmatch, current)):
        same = (match["before"], match["after"]) == (mine["before"], mine["after"])
        if same and int(match["number"]) > int(mine["number"]):
            return True
    return False


def _messages(asyncapi: Schema) -> dict[str, Schema]:
    """Each message by its topic and name, as the schema of an object of its parts."""
    found: dict[str, Schema] = {}
    for channel in asyncapi.get("channels", {}).values():
        for name in channel["messages"]:
            message = asyncapi["components"]["messages"][name]
            parts = {
                "content type": {"const": message.get("contentType")},
                "headers": message.get("headers", EVERYTHING),
                "payload": message["payload"],
                "key": message.get("bindings", {}).get("kafka", {}).get("key", EVERYTHING),
            }
            found[f"{channel['address']} {name}"] = {"properties": parts}
    return found


def _operations(openapi: Schema) -> dict[str, Schema]:
    """What each operation takes and what it answers, each as the schema of an object."""
    document = json.loads(json.dumps(openapi).replace("#/components/schemas/", "#/$defs/"))
    parts = document.get("components", {}).get("schemas", {})
    found: dict[str, Schema] = {}
    for path, item in document.get("paths", {}).items():
        for method, operation in item.items():
            given = operation.get("parameters", [])
            asked = {p["name"]: p["schema"] for p in given}
            if "requestBody" in operation:
                asked["body"] = _content(operation["requestBody"])
            required = [p["name"] for p in given if p.get("required")]
            name = f"{method.upper()} {path}"
            request = {"properties": asked, "required": required, "$defs": parts}
            found[f"request {name}"] = request
            told = {code: _content(answer) for code, answer in operation["responses"].items()}
            found[f"answer {name}"] = {"properties": told, "$defs": parts}
    return found


def _content(holder: Schema) -> Schema:
    for media in holder.get("content", {}).values():
        found: Schema = media.get("schema", EVERYTHING)
        return found
    return EVERYTHING


PARTS: Final = {"asyncapi.json": _messages, "openapi.json": _operations}
"""Documents that hold many schemas, and how they are taken apart."""


def narrowed(old: Schema, new: Schema, *, additions: bool = False) -> list[str]:
    """Where `new` refuses what `old` allowed, or gives it another meaning.

    With `additions` it is no fault that `old` has fields and kinds that `new` has not.
    """
    return list(_Comparison(old, new, additions).of(old, new, ""))


class _Comparison:
    def __init__(self, old: Schema, new: Schema, additions: bool) -> None:
        self._old, self._new = old, new
        self._additions = additions
        self._open: set[tuple[str, str]] = set()
        """Pairs of references that are being compared: a schema may hold itself."""

    def of(self, old: Schema, new: Schema, at: str) -> Iterator[str]:
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if all(pair):
            if pair in self._open:
                return
            self._open.add(pair)
        old, new = _resolved(old, self._old), _resolved(new, self._new)
        if "anyOf" in old or "anyOf" in new:
            yield from self._choices(old, new, at)
        else:
            yield from self._values(old, new, at)
            yield from self._object(old, new, at)
            yield from self._array(old, new, at)
        yield from _default(old, new, at)
        self._open.discard(pair)

    def _choices(self, old: Schema, new: Schema, at: str) -> Iterator[str]:
        news = new.get("anyOf", (new,))
        for choice in old.get("anyOf", (old,)):
            title = _resolved(choice, self._old).get("title")
            named = [n for n in news if title and _resolved(n, self._new).get("title") == title]
            if len(named) == 1:
                yield from self.of(choice, named[0], f"{at}/{title}")
            elif self._additions and title and len(news) > 1:
                continue  # a kind that readers do not know
            elif all(list(self.of(choice, n, at)) for n in news):
                yield f"{at or '/'}: {title or choice.get('type')} is allowed no more"

    def _values(self, old: Schema, new: Schema, at: str) -> Iterator[str]:
        at = at or "/"
        if "type" in new and old.get("type") not in (new["type"], _part_of(new["type"])):
            yield f"{at}: type {old.get('type', 'any')} became {new['type']}"
        allowed = _allowed(new)
        if allowed is not None:
            gone = [v for v in _allowed(old) or ["any other"] if v not in allowed]
            if gone:
                yield f"{at}: {gone} is allowed no more"
        for word in LEAST:
            if new.get(word, 0) > old.get(word, 0) or (word == "minimum" and _bound(old, new)):
                yield f"{at}: {word} rose to {new[word]}"
        for word in MOST:
            if word in new and new[word] < old.get(word, float("inf")):
                yield f"{at}: {word} fell to {new[word]}"
        for rule in set(new.get("x-rules", ())) - set(old.get("x-rules", ())):
            yield f"{at}: there is a rule {rule}"
        for word in sorted(new.keys() - _KNOWN):
            if old.get(word) != new[word]:
                yield f"{at}: {word} became {new[word]!r}"

    def _object(self, old: Schema, new: Schema, at: str) -> Iterator[str]:
        fields: Schema = new.get("properties", {})
        for name, field in old.get("properties", {}).items():
            if name in fields:
                yield from self.of(field, fields[name], f"{at}/{name}")
            elif not self._additions:
                yield f"{at}/{name}: the field is gone"
        for name in sorted(set(new.get("required", ())) - set(old.get("required", ()))):
            yield f"{at}/{name}: the field is required"
        for word in ("additionalProperties", "items"):
            yield from self._rest(old.get(word, True), new.get(word, True), f"{at}/{word}")
        patterns: Schema = new.get("patternProperties", {})
        for pattern, field in old.get("patternProperties", {}).items():
            if pattern not in patterns:
                yield f"{at}: names like {pattern} are allowed no more"
            else:
                yield from self.of(field, patterns[pattern], f"{at}/{pattern}")

    def _rest(self, old: Schema | bool, new: Schema | bool, at: str) -> Iterator[str]:
        if old is False or new is True:
            return
        if new is False:
            yield f"{at}: nothing is allowed there any more"
        else:
            yield from self.of(EVERYTHING if old is True else old, new, at)

    def _array(self, old: Schema, new: Schema, at: str) -> Iterator[str]:
        olds, news = old.get("prefixItems", ()), new.get("prefixItems", ())
        if len(olds) != len(news):
            yield f"{at}: it has {len(news)} items instead of {len(olds)}"
        for i, (one, two) in enumerate(zip(olds, news, strict=False)):
            yield from self.of(one, two, f"{at}/{i}")


_KNOWN: Final = {
    *TEXTS,
    *LEAST,
    *MOST,
    "additionalProperties",
    "anyOf",
    "const",
    "default",
    "enum",
    "items",
    "patternProperties",
    "prefixItems",
    "properties",
    "required",
    "type",
    "x-rules",
}
"""What is compared by its meaning; any other keyword may not change."""


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Without a reference into its own document; what stands beside the reference stays."""
    reference = schema.get("$ref", "")
    if "allOf" in schema:
        return _merged([_resolved(part, root) for part in schema["allOf"]])
    if not reference.startswith("#/$defs/"):
        return schema
    beside = {word: value for word, value in schema.items() if word != "$ref"}
    return {**root["$defs"][reference.removeprefix("#/$defs/")], **beside}


def _merged(parts: list[Schema]) -> Schema:
    """Of objects that have the fields of all parts."""
    merged: dict[str, Any] = {word: value for part in parts for word, value in part.items()}
    merged["properties"] = {n: f for part in parts for n, f in part.get("properties", {}).items()}
    merged["required"] = [name for part in parts for name in part.get("required", ())]
    return merged


def _part_of(type_: Any) -> Any:
    return "integer" if type_ == "number" else type_


def _bound(old: Schema, new: Schema) -> bool:
    return "minimum" in new and "minimum" not in old


def _allowed(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _default(old: Schema, new: Schema, at: str) -> Iterator[str]:
    """What is left out must go on meaning the same: bodies in the ledger leave defaults out."""
    if "default" in old and not _same(old["default"], new.get("default", ...)):
        yield f"{at}: the default {old['default']!r} became {new.get('default', 'none')!r}"


def _same(old: Any, new: Any) -> bool:
    """Equal, but for fields that came to an object; they have defaults of their own."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and _same(value, new[name]) for name, value in old.items())
    return type(old) is type(new) and bool(old == new)
