"""`aquifer rent`: nodes of providers for what waits for room, as a process beside the workers."""

from __future__ import annotations

import asyncio
import importlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field, ValidationError

from aquifer.errors import rules_of
from aquifer.output import USAGE, fail, note
from aquifer.serve import bootstrap_of, play
from aquifer.together import together
from domain.specs import Model, Name
from streams.providers import Offer, Provider
from streams.renting import Renter, Rules

if TYPE_CHECKING:
    from aquifer.clocks import SystemClock
    from aquifer.settings import Settings
    from streams.fleet import Fleet
    from streams.rented import Deliveries


class Adapter(Model):
    """One provider, and the class that speaks with it."""

    provider: Name
    adapter: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] = (
        "streams.simulated_provider:SimulatedProvider"
    )
    """module:class, made with the provider's name, its offers, and the options by name."""
    offers: Annotated[tuple[Offer, ...], Field(min_length=1, max_length=64)]
    options: Annotated[dict[str, Any], Field(default_factory=dict)]


class Providers(Model):
    rules: Rules = Rules()
    providers: Annotated[tuple[Adapter, ...], Field(min_length=1, max_length=16)]


def rent(
    file: Annotated[Path, typer.Argument(help="JSON: providers with their offers, and rules.")],
    every_s: Annotated[int, typer.Option(min=1, max=3600, help="Seconds between looks.")] = 10,
) -> None:
    """Rent nodes for jobs that wait for room, and give back what is idle, until stopped."""
    from aquifer.settings import load

    settings = load()
    bootstrap = bootstrap_of(settings)
    try:
        table = Providers.model_validate_json(file.read_bytes())
        made = [_made(adapter) for adapter in table.providers]
    except ValidationError as error:
        fail(f"{file}: {'; '.join(rules_of(error))}", USAGE)
    except (OSError, ImportError, AttributeError, TypeError) as error:
        fail(f"{file}: {error}", USAGE)
    play(_rent(settings, bootstrap, made, table.rules, every_s))


def _made(adapter: Adapter) -> Provider:
    module, _, name = adapter.adapter.partition(":")
    kind = getattr(importlib.import_module(module), name)
    made: Provider = kind(adapter.provider, adapter.offers, **adapter.options)
    return made


async def _rent(
    settings: Settings, bootstrap: str, made: list[Provider], rules: Rules, every_s: int
) -> None:
    from aquifer.clocks import SystemClock
    from aquifer.folder import Folder
    from aquifer.trust import speaker_of, verifier_of
    from streams.fleet import Fleet
    from streams.kafka_fleet import run_fleet
    from streams.kafka_renting import rent
    from streams.rented import Deliveries
    from streams.simulated_provider import SimulatedProvider
    from streams.snapshots import FileSnapshots

    folder, clock, session = Folder(settings.state_dir), SystemClock(), f"s{time.time_ns()}"
    speaker = speaker_of(settings, folder)
    verifier, snapshots = verifier_of(settings, folder), FileSnapshots(folder.snapshots)
    note(f"cell {settings.cell}: {len(made)} providers; stop with Ctrl-C")
    renting = rent(
        bootstrap, settings.cell, Renter(made, rules), clock, session, verifier, snapshots,
        speaker, every_s=every_s,
    )  # fmt: skip
    simulated = [p for p in made if isinstance(p, SimulatedProvider)]
    if not simulated:
        await renting
        return
    fleet = Fleet()
    agents = run_fleet(bootstrap, settings.cell, fleet, clock, f"{session}-agents", speaker)
    await together(renting, agents, _deliver(Deliveries(simulated), fleet, clock))


async def _deliver(deliveries: Deliveries, fleet: Fleet, clock: SystemClock) -> None:
    while True:
        deliveries.join(fleet, clock.now_ms())
        await asyncio.sleep(1)
