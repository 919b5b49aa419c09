"""What a kernel may reach: find out what this host can enforce, and turn settings into a plan, pure data."""

from kernelrepl.sandbox.interpreter import Interpreter, describe
from kernelrepl.sandbox.plan import Access, Plan, Surroundings, confined, resolve_access, uid_of
from kernelrepl.sandbox.probe import Tier, probe

__all__ = [
    "Access",
    "Interpreter",
    "Plan",
    "Surroundings",
    "Tier",
    "confined",
    "describe",
    "probe",
    "resolve_access",
    "uid_of",
]
