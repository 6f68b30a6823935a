"""`aquifer policy bundles|show`: whole sets of parameters with a name, ready to be sent."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from aquifer.output import USAGE, JsonFlag, emit, fail

app = typer.Typer(help="Policies: documents of rules, and bundles.", no_args_is_help=True)


@app.command("bundles")
def bundles(as_json: JsonFlag = False) -> None:
    """The bundles, and what each sets that is not as by default."""
    from domain.bundles import BUNDLES

    rows = [{"bundle": name, **_set(name)} for name in BUNDLES]
    emit({"bundles": rows} if as_json else rows, as_json)


@app.command("show")
def show(
    bundle: Annotated[str, typer.Argument(help="The name of a bundle.")],
) -> None:
    """The bundle as a command: `aquifer policy show NAME | aquifer send -`."""
    from domain.bundles import BUNDLES
    from domain.ledger import canonical

    if bundle not in BUNDLES:
        fail(f"{bundle!r} is none of {', '.join(BUNDLES)}", USAGE)
    command = {"type": "SetPolicy", "parameters": _set(bundle), "reason": f"bundle {bundle}"}
    typer.echo(canonical(command).decode())


def _set(bundle: str) -> dict[str, Any]:
    from domain.bundles import BUNDLES

    return BUNDLES[bundle].model_dump(mode="json", exclude_defaults=True)
