"""`aquifer rent` says what is wrong with its table before it begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aquifer.cli import app

OFFER = {
    "offer": "spot",
    "accelerator": "h100",
    "slots": 8,
    "path": {"region": "cloud", "cluster": "c", "block": "b", "rack": "r"},
    "price_milli": 900,
    "most": 2,
    "lead_s": 2,
    "term_s": 600,
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offers": []}, "providers.0.offers"),
        ({"offers": [{**OFFER, "slots": 0}]}, "providers.0.offers.0.slots"),
        ({"adapter": "nowhere"}, "providers.0.adapter"),
        ({"adapter": "nowhere:At"}, "No module named 'nowhere'"),
        ({"adapter": "streams.providers:Nobody"}, "Nobody"),
        ({"options": {"speed": 1}}, "speed"),
        ({"colour": "red"}, "providers.0.colour"),
    ],
)
def test_a_wrong_table_is_refused_by_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("AQUIFER_KAFKA", "localhost:1")
    table = tmp_path / "providers.json"
    provider = {"provider": "cloud", "offers": [OFFER], **change}
    table.write_text(json.dumps({"providers": [provider]}))
    result = CliRunner().invoke(app, ["rent", str(table)])
    assert result.exit_code == 2
    assert str(table) in result.output
    assert said in result.output
