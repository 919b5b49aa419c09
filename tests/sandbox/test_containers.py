"""What a container engine does to its processes, done to the probe: which tier is left, and what is said."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl.guest.isolation import seccomp as syscalls
from tests.conftest import this_tier

PROFILE = Path(__file__).parents[2] / "examples" / "docker" / "seccomp.json"
NAMESPACES = ("unshare", "mount", "umount2", "pivot_root", "setns", "open_tree", "move_mount", "mount_setattr")
"""What engines refuse by themselves to whoever has no right to administrate."""

PROBE = f"""
import os, sys, tempfile
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from kernelrepl.sessions.confinement import base_environment
from kernelrepl.sandbox import probe
from tests.sandbox.test_containers import refuse
refuse(sys.argv[1:])
with tempfile.TemporaryDirectory(prefix="kr-") as place:
    tier = probe(sys.executable, base_environment(os.environ, Path(place)), Path(place))
print(tier.label)
print(tier.why)
"""


def refuse(names: list[str]) -> None:
    """Answer EPERM to these system calls from now on, as an engine that runs with such a profile."""
    numbers = syscalls.numbers(platform.machine())
    code = [struct.pack("=HBBI", 0x20, 0, 0, 0)]
    for name in names:
        if name in numbers:
            code.append(struct.pack("=HBBI", 0x15, 0, 1, numbers[name]))
            code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x00050001))
    code.append(struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000))
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    syscalls.install(b"".join(code))


def probed(names: list[str]) -> tuple[str, str]:
    """The tier of a process to which these system calls are refused, and why it is not the better one."""
    done = subprocess.run([sys.executable, "-c", PROBE, *names], capture_output=True, text=True, check=True)
    label, _, why = done.stdout.partition("\n")
    return label, why.strip()


def test_with_our_profile_tier_1_is_possible() -> None:
    """It refuses what no kernelrepl needs, and only names that there are."""
    [rule] = json.loads(PROFILE.read_text())["syscalls"]
    assert set(rule["names"]) <= set(syscalls.numbers("x86_64"))
    assert {"ptrace", "bpf", "init_module", "kexec_load", "io_uring_setup"} <= set(rule["names"])
    assert probed(rule["names"]) == (this_tier().label, this_tier().why)


def test_without_it_namespaces_are_refused_and_it_is_said() -> None:
    """As an ordinary user tier 2 is left where Landlock is new enough; as root nothing, and the remedy is named."""
    label, why = probed(list(NAMESPACES))
    assert "tier 1: " in why
    assert "Operation not permitted" in why
    if os.geteuid() == 0:
        assert label == "none"
        assert "run kernelrepl as an ordinary user" in why
    elif this_tier().landlock < 6:
        assert label == "none"
    else:
        assert label == "tier 2"


@pytest.mark.parametrize("name", ["unshare", "mount", "pivot_root", "mount_setattr"])
def test_each_of_them_alone_is_enough_to_make_tier_1_impossible(name: str) -> None:
    """Nothing is half confined."""
    label, why = probed([name])
    assert label in ("none", "tier 2")
    assert "tier 1: " in why
