"""`python -m aquifer.contracts`: writes docs/contracts from the code that obeys it.

Schemas come from the models and structs, their texts from the docstrings. What was released is
kept in docs/contracts/released; `--release` brings it up to date and belongs to a release alone.
"""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core.core_schema import ModelSchema

from aquifer import asyncapi
from domain import (
    commands,
    fact,
    facts,
    ledger,
    ports,
    replays,
    specs,
)
from domain.policies import attributes, effects
from domain.policies import commands as policy_commands
from domain.policies import documents as policy_documents
from domain.policies import facts as policy_facts
from domain.pool import commands as pool_commands
from domain.pool import facts as pool_facts
from domain.pool import guard_facts
from domain.pool import specs as pool_specs
from projections.http import describe
from streams import dispatch

FOLDER: Final = Path(__file__).parents[1] / "docs" / "contracts"
RELEASED: Final = "released"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

WRITTEN: Final = 1
"""Version of the schemas of all that is written: facts, records, dead letters, instructions."""

RULES: Final = "x-rules"
"""Names of a model's rules across fields, which a schema cannot express."""

Json = dict[str, Any]


class _CommandSchema(GenerateJsonSchema):
    """Adds to each model its rules across fields, and that no other members are allowed."""

    def model_schema(self, schema: ModelSchema) -> Json:
        made = super().model_schema(schema)
        rules = schema["cls"].__pydantic_decorators__.model_validators
        if rules:
            made[RULES] = sorted(name.strip("_") for name in rules)
        return made

    def dict_schema(self, schema: Any) -> Json:
        made = super().dict_schema(schema)
        if "patternProperties" in made:
            made["additionalProperties"] = False
        return made


def documents() -> dict[str, Json]:
    """Every generated document by its path in the folder."""
    made = {
        asyncapi.command_path(name): _command(model) for name, model in commands.COMMANDS.items()
    }
    made[f"facts.v{WRITTEN}.json"] = _facts()
    made[f"ledger-record.v{WRITTEN}.json"] = _record()
    made[f"accepted.v{WRITTEN}.json"] = _accepted()
    made[f"dead-letter.v{WRITTEN}.json"] = _dead_letter()
    made[f"dispatch-instruction.v{WRITTEN}.json"] = _structs(dispatch.Instruction, dispatch)
    made = {path: {"$schema": DIALECT, **document} for path, document in made.items()}
    made[f"policy.v{WRITTEN}.json"] = {"$schema": DIALECT, **_policy()}
    made["asyncapi.json"] = asyncapi.document(WRITTEN)
    made["openapi.json"] = describe()
    return made


def _command(model: type[commands.Command]) -> Json:
    schema = model.model_json_schema(schema_generator=_CommandSchema)
    own = (commands, pool_commands, policy_commands)
    return _described(schema, *own, specs, pool_specs, policy_documents, replays)


def _policy() -> Json:
    """For editors: a policy's document, with what its rules may read and do by phase."""
    schema = policy_documents.PolicyDocument.model_json_schema(schema_generator=_CommandSchema)
    made = _described(schema, policy_documents, specs)
    made["x-phases"] = {
        phase.value: {
            "reads": {
                name: {"type": a.type, "unit": a.unit, "description": a.text}
                for subject in (*attributes.READS[phase], "signal")
                if subject is not None
                for name, a in attributes.SUBJECTS[subject].items()
                if phase in attributes.PER_JOB or not a.per_job
            },
            "effects": {
                do: {"kind": f.kind, "minimum": f.low, "maximum": f.high, "unit": f.unit}
                for do, f in effects.FORMS[phase].items()
            },
        }
        for phase in attributes.Phase
    }
    return made


def _structs(type_: Any, *modules: ModuleType) -> Json:
    """The schema of a type made of the modules' structs, with all that it refers to."""
    (schema,), parts = msgspec.json.schema_components([type_], ref_template="#/$defs/{name}")
    return _described({**schema, "$defs": parts}, *modules)


def _facts() -> Json:
    kinds = (facts, pool_facts, guard_facts, policy_facts, fact)
    return {"title": "Fact", **_structs(facts.AnyFact, *kinds)}


def _record() -> Json:
    """A ledger record; its facts are those of the document beside it."""
    made = _structs(ledger.Round, ledger)
    parts = made["$defs"]
    kinds = {*facts.FACTS, "Why", "Victim", "OfferWhy", "Counted"}
    parts = {name: part for name, part in parts.items() if name not in kinds}
    parts["Round"]["properties"]["facts"]["items"] = {"$ref": f"facts.v{WRITTEN}.json"}
    _of_a_command(parts["Accepted"])
    record = _structs(ledger.Sealed, ledger)["$defs"]["Sealed"]
    record["properties"]["body"] = {"$ref": "#/$defs/Round"}
    record["description"] = "\n\n".join((inspect.getdoc(ledger) or "").split("\n\n")[1:])
    return {**record, "title": "Record", "$defs": parts}


def _accepted() -> Json:
    """An accepted command as its topic holds it: its place there is its position."""
    made: Json = _structs(ledger.Accepted, ledger)["$defs"]["Accepted"]
    _of_a_command(made)
    return _without(made, "partition", "offset")


def _of_a_command(accepted: Json) -> None:
    body = accepted["properties"]["data"]
    body["type"] = "object"
    body["description"] = (
        "The body as the command's schema has it, without `type` and without what is default."
    )


def _dead_letter() -> Json:
    """The reason, as the header says it; the message itself is what the record holds."""
    made: Json = _structs(ports.DeadLetter, ports)["$defs"]["DeadLetter"]
    made["description"] = "Why a message was not accepted, and where it stood."
    return _without(made, "value", "headers", "key")


def _without(schema: Json, *names: str) -> Json:
    for name in names:
        del schema["properties"][name]
    schema["required"] = [name for name in schema["required"] if name not in names]
    return schema


# --- texts ----------------------------------------------------------------------------------------


def _described(schema: Json, *modules: ModuleType) -> Json:
    """The schema with the fields' docstrings, without the titles made of names."""
    texts = {key: text for module in modules for key, text in _field_texts(module).items()}
    classes = {name: class_ for module in modules for name, class_ in vars(module).items()}
    for part in (schema, *schema.get("$defs", {}).values()):
        class_ = classes.get(part.get("title", ""))
        class_ = class_ if isinstance(class_, type) else None
        for name, field in part.get("properties", {}).items():
            field.pop("title", None)
            for owner in class_.__mro__ if class_ is not None else ():
                if (owner.__name__, name) in texts:
                    field["description"] = texts[owner.__name__, name]
                    break
    return schema


def _field_texts(module: ModuleType) -> dict[tuple[str, str], str]:
    """By class and field: the docstring that stands below the field."""
    texts: dict[tuple[str, str], str] = {}
    for class_ in ast.parse(inspect.getsource(module)).body:
        if isinstance(class_, ast.ClassDef):
            for field, text in _pairs(class_):
                texts[class_.name, field] = text
    return texts


def _pairs(class_: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for one, two in zip(class_.body, class_.body[1:], strict=False):
        match one, two:
            case (
                ast.AnnAssign(target=ast.Name(id=field)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield field, inspect.cleandoc(text)


# --- files ----------------------------------------------------------------------------------------


def text_of(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write(folder: Path, made: Mapping[str, Json]) -> None:
    """Write the documents; others of the folder's that are generated no more are removed."""
    for path, document in made.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text_of(document))
    for file in (*folder.glob("*.v*.json"), *folder.glob("commands/*.json")):
        if str(file.relative_to(folder)) not in made:
            file.unlink()


def read(folder: Path) -> dict[str, Json]:
    """The documents of a folder by path, without those of its folder of released ones."""
    files = [*folder.glob("*.v*.json"), *folder.glob("commands/*.json"), *folder.glob("*api.json")]
    return {str(file.relative_to(folder)): json.loads(file.read_text()) for file in sorted(files)}


if __name__ == "__main__":
    write(FOLDER, documents())
    if sys.argv[1:] == ["--release"]:
        released = FOLDER / RELEASED
        write(released, {**(read(released) if released.exists() else {}), **documents()})
