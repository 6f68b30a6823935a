"""Policies as data: documents of rules in the ledger, checked before they count."""
