"""Settings: what the environment says.

`AQUIFER_<FIELD>` in upper case sets a field of `Settings`; an empty value counts as not set.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from aquifer.errors import Misuse
from domain.specs import Name

PREFIX: Final = "AQUIFER_"
_OF_INFRA: Final = {"AQUIFER_CACHE", "AQUIFER_SERVERS"}  # where local servers come from
CQL_PORT: Final = 9042


class BadSettings(Misuse):
    """A setting is not valid; the message names the variable and the rule, never the value."""


class Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    cell: Name = "local"
    """Name of the cell."""
    state_dir: Path = Path("var")
    """Keys, snapshots, and in the embedded profile everything."""
    kafka: str | None = None
    """Kafka's bootstrap servers, host:port with commas between; set: the distributed profile."""
    cassandra: str | None = None
    """Cassandra's contact points, host[:port] with commas between."""
    keyspace: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")] = "aquifer"
    redis: SecretStr | None = None
    """Redis' URL; it may hold a password."""
    signing_key: Path | None = None
    """PEM file of the key that signs the ledger; by default one in the state directory."""
    keys: Path | None = None
    """JSON list of the public keys whose records are believed; by default the state directory's."""
    actors: Path | None = None
    """Table of who may give which commands, signed with which keys; without it all may."""
    readers: Path | None = None
    """Table of who may read and submit over HTTP, with which tokens; without it anyone may."""
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 500
    """Requests a second of one caller of the read API, after a burst of twice as many; 0: any."""
    host: str = "127.0.0.1"
    """Address on which the read API listens."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    checkpoint_s: Annotated[int, Field(ge=0, le=31_536_000)] = 3600
    """A signed checkpoint of the ledger is put into the state directory this often; 0: never."""
    cursor_key: SecretStr | None = None
    """Signs the cursors of paged answers; the same for all processes that serve one API."""
    peers: Path | None = None
    """The regions that this one hands jobs to, and how they are reached; for `aquifer relay`."""
    tls_certificate: Path | None = None
    """PEM file with which the read API serves HTTPS; without it plain HTTP."""
    tls_key: Path | None = None
    """Its private key; by default it is in the same file."""
    tls_clients: Path | None = None
    """PEM file of authorities: callers have to show a certificate of one of them."""
    subjects: Path | None = None
    """File of the keys under which personal data is sealed; by default in the state directory."""
    url: str | None = None
    """A running read API for the command line to ask."""

    @property
    def distributed(self) -> bool:
        return self.kafka is not None

    @property
    def subjects_file(self) -> Path:
        return self.subjects or self.state_dir / "subjects.sqlite"

    def of_cell(self, cell: str) -> Settings:
        """One cell of several in a process: its folder is in the state directory."""
        return self.model_copy(update={"cell": cell, "state_dir": self.state_dir / cell})

    @property
    def contact_points(self) -> tuple[list[str], int]:
        """Cassandra's hosts, and the port that all of them have."""
        points = [p.strip() for p in (self.cassandra or "").split(",") if p.strip()]
        parted = [point.partition(":") for point in points]
        ports = {int(port or CQL_PORT) for _, _, port in parted} or {CQL_PORT}
        if len(ports) > 1:
            raise BadSettings(f"{PREFIX}CASSANDRA: all hosts have one port")
        return [host for host, _, _ in parted], ports.pop()


def load(environment: Mapping[str, str] | None = None) -> Settings:
    """Settings from the environment. Raises BadSettings, also for a variable that means nothing."""
    source = os.environ if environment is None else environment
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in source.items()
        if name.startswith(PREFIX) and name not in _OF_INFRA and value
    }
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        rules = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
            for e in error.errors(include_input=False, include_url=False)
        )
        raise BadSettings(rules) from None
