"""How kernels are confined in a run: a tier, and what is taken away from it to see what then gets through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kernelrepl.guest.isolation import landlock
from kernelrepl.kernel import Launch
from kernelrepl.sandbox import Tier
from kernelrepl.sandbox.plan import NAMESPACES
from kernelrepl.sessions.confinement import Confinement, SessionSpec

MUTANT = "tests.attacks.mutant"
MUTATION = "KERNELREPL_MUTATION"
"""How the guest is told which of its rules to forget."""


@dataclass(frozen=True)
class Configuration:
    """By name, so that it can be told to another process."""

    name: str
    tier: int = 1
    landlock: bool = True
    without: tuple[str, ...] = ()
    """Namespaces."""
    mutation: str = ""


UNCONFINED = Configuration("no sandbox", tier=0)
"""For controls only, and never as root."""
TIER_1, TIER_2 = Configuration("tier 1"), Configuration("tier 2", tier=2)
NO_LANDLOCK = Configuration("tier 1, no Landlock", landlock=False)
REDUCED = (
    NO_LANDLOCK,
    *(Configuration(f"tier 1, no {name} namespace", without=(name,)) for name in NAMESPACES),
)
CONFIGURATIONS: Mapping[str, Configuration] = {found.name: found for found in (TIER_1, TIER_2, *REDUCED)}


def mutated(mutation: str, tier: int = 1) -> Configuration:
    """A tier whose guest or plan has lost one rule."""
    return Configuration(f"tier {tier}, mutation {mutation}", tier=tier, mutation=mutation)


@dataclass(frozen=True)
class Arranged(Confinement):
    """What a keeper would do, but for what the configuration changes."""

    configuration: Configuration = TIER_1

    def launch(self, workspace: Path, fixed: SessionSpec) -> Launch:
        """The launch of a kernel, with the plan changed when it is made."""
        launch = super().launch(workspace, fixed)
        made, found = launch.confine, self.configuration
        assert made is not None

        def confine() -> Mapping[str, Any]:
            plan = made()
            assert plan is not None
            return _changed(dict(plan), found)

        if not found.mutation:
            return replace(launch, confine=confine)
        environment = {**launch.environment, MUTATION: found.mutation}
        return replace(launch, confine=confine, module=MUTANT, environment=environment)


def _changed(plan: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    if not configuration.landlock:
        plan["landlock"] = None
    plan["namespaces"] = [name for name in plan["namespaces"] if name not in configuration.without]
    return plan


def tier_of(configuration: Configuration) -> Tier:
    """As if a probe had found it."""
    return Tier(configuration.tier, landlock.version() if configuration.tier == 2 else 0)
