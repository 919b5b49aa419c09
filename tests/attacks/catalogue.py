"""All attempts, by group and by name."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import replace

from tests.attacks import (
    beginnings,
    budgets,
    checkpoints,
    execution,
    files,
    keeper,
    lifecycle,
    limits,
    neighbours,
    network,
    proc,
    processes,
    races,
    surroundings,
    syscalls,
    words,
)
from tests.attacks.attempt import Attempt

_MODULES = (
    files, proc, network, processes, syscalls, execution, surroundings, neighbours, checkpoints, keeper, lifecycle,
    beginnings, limits, budgets, races, words,
)  # fmt: skip
ATTEMPTS: tuple[Attempt, ...] = tuple(
    replace(found, group=group)
    for module in _MODULES
    for group, attempts in module.GROUPS.items()
    for found in attempts
    if platform.machine() in found.machines
)
BY_NAME: Mapping[str, Attempt] = {found.name: found for found in ATTEMPTS}
assert len(BY_NAME) == len(ATTEMPTS), "two attempts have one name"


def possible(tier: int) -> list[Attempt]:
    """Those that mean something in a tier."""
    return [found for found in ATTEMPTS if tier in found.tiers]
