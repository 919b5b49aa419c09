"""Packages that one session has beside the environment which all sessions share: resolved, installed, kept and counted.

The keeper does this, never a kernel. No code of a package runs outside of a sandbox: only wheels are taken, and a wheel
is unpacked, not run.
"""

from kernelrepl.packages.installation import Installed, Packages
from kernelrepl.packages.policy import Policy

__all__ = ["Installed", "Packages", "Policy"]
