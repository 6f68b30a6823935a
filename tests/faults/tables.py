"""Whole tables of a keyspace, to compare two projections of one ledger."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile
from cassandra.query import dict_factory

from projections.tables import TABLES

Rows = dict[tuple[Any, ...], dict[str, Any]]


def all_rows(contact_points: Sequence[str], port: int, keyspace: str) -> dict[str, Rows]:
    """By table, and by key, each row by column."""
    profile = ExecutionProfile(row_factory=dict_factory, request_timeout=60)
    profiles = {EXEC_PROFILE_DEFAULT: profile}
    cluster = Cluster(
        list(contact_points), port=port, execution_profiles=profiles, protocol_version=5
    )
    try:
        session = cluster.connect()
        return {
            name: {
                tuple(row[column] for column in table.key): row
                for row in session.execute(f"SELECT * FROM {keyspace}.{table.name}")
            }
            for name, table in TABLES.items()
        }
    finally:
        cluster.shutdown()
