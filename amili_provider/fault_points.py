"""
Named points of a delivery, so that tests can end a worker, or cut its database, exactly there.

The places that matter call ``fault_points.reached(name)``. In production that does nothing. A test puts a function of
its own in its place, in the process of its worker: see :data:`NAMES` for what it is called with.
"""

from __future__ import annotations

NAMES = (
    "listed",
    "opened",
    "looked up",
    "before claim",
    "claimed",
    "before commit",
    "committed",
    "before tail",
    "after tail",
    "answered",
    "before settle",
    "settled",
    "before resolve",
    "resolved",
    "before move",
    "moved",
    "delivered",
)
"""Every name, in the order in which a delivery comes to it; claims, outcomes and resolutions are commits, too."""


def reached(_name: str, /) -> None:
    """Do nothing. Tests replace it."""
