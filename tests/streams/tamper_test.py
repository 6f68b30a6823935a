"""A slice of `benchmarks tamper`: whatever is done to a ledger, its proof finds it."""

from __future__ import annotations

import pytest

from benchmarks.tamper import KINDS, Ledger, found_by_checkpoint, found_by_proof, tampered


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    return Ledger(tmp_path_factory.mktemp("ledger"), jobs=40)


def test_the_untouched_ledger_is_proven(ledger: Ledger) -> None:
    assert not found_by_proof(ledger, ledger.records)
    assert not found_by_checkpoint(ledger, ledger.records)


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_tampering_is_found(ledger: Ledger, number: int) -> None:
    for seed in range(number, 4 * len(KINDS), len(KINDS)):
        kind, records = tampered(ledger, seed)
        assert kind == KINDS[number].__name__
        assert found_by_proof(ledger, records), f"{kind}, seed {seed}"
        assert found_by_checkpoint(ledger, records), f"{kind}, seed {seed}"
