"""What a kernel may reach: find out what this host can enforce, and turn settings into a plan, pure data."""

from kernelrepl.sandbox.exposure import Exposure, own_sources, resolved
from kernelrepl.sandbox.interpreter import Interpreter, describe, led, locate, sources
from kernelrepl.sandbox.plan import Access, Plan, Surroundings, check_write, confined, resolve_access, uid_of
from kernelrepl.sandbox.probe import Tier, probe

__all__ = [
    "Access",
    "Exposure",
    "Interpreter",
    "Plan",
    "Surroundings",
    "Tier",
    "check_write",
    "confined",
    "describe",
    "led",
    "locate",
    "own_sources",
    "probe",
    "resolve_access",
    "resolved",
    "sources",
    "uid_of",
]
