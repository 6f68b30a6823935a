"""Whole policies with a name, for what an operator may want most."""

from __future__ import annotations

from typing import Final

from domain.specs import PolicyParameters

BUNDLES: Final[dict[str, PolicyParameters]] = {
    "protect-strict": PolicyParameters(
        order="earliest_deadline",
        yield_ratio_milli=4000,
        min_run_s=(0, 300, 300, 300),
        queue_delay_s=(0, 60, 600, 86_400),
    ),
    "maximise-utilisation": PolicyParameters(preemption=False),
}
"""Sent as the parameters of a SetPolicy; any of them may be changed before."""
