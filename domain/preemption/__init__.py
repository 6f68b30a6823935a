"""Preemption at least cost: who may claim, whom it may cost, and where it makes room."""
