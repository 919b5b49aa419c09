"""Find out what this host can enforce, by doing it: a child confines itself and tries what it must not do."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kernelrepl.guest import frames, wire
from kernelrepl.model import Resources
from kernelrepl.sandbox import bootstrap
from kernelrepl.sandbox.interpreter import Interpreter, describe, locate
from kernelrepl.sandbox.plan import Access, Plan, Surroundings, confined, uid_of
from kernelrepl.workspaces import directories

MODULE = "kernelrepl.guest.selftest"
ALLOWED = "write into the workspace"
FULL_LANDLOCK = 6
_TIMEOUT_S = 30.0
_AS_ROOT = "as root only tier 1 is possible; run kernelrepl as an ordinary user"


@dataclass(frozen=True)
class Tier:
    """What kernels are confined by here."""

    number: int
    """1 or 2; 0 where neither is possible."""
    landlock: int = 0
    """The version of Landlock, 0 where there is none."""
    why: str = ""
    """Why it is not the better one."""
    acts: tuple[tuple[str, str], ...] = ()
    """What a confined process tried, and the error it got."""

    @property
    def label(self) -> str:
        if self.number == 1 and not self.landlock:
            return "tier 1, no Landlock"
        return f"tier {self.number}" if self.number else "none"


def probe(
    python: str,
    environment: Mapping[str, str],
    directory: Path,
    cache: Path | None = None,
    module: str = MODULE,
    places: Iterable[str] = (),
) -> Tier:
    """The best tier that holds here. Asked once per boot if there is a file to remember it in.

    directory: one of the keeper's own, which confined processes must not be able to see. places: where sessions write.
    Raises what `describe` raises.
    """
    key = _key(python)
    if cache is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            known = json.loads(cache.read_text())
            if known.pop("key") == key:
                return Tier(**{**known, "acts": tuple(map(tuple, known["acts"]))})
    interpreter = describe(python, environment, places)  # nothing is started before it has been looked at
    tier = _probe(interpreter, locate(python, environment), environment, directory, module)
    if cache is not None and tier.number:
        with contextlib.suppress(OSError):
            cache.write_text(json.dumps({"key": key, **asdict(tier)}))
    return tier


def _key(python: str) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id")
    started = boot.read_text().strip() if boot.exists() else secrets.token_hex(8)
    settings = [
        path.read_text().strip()
        for path in (
            Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            Path("/proc/sys/kernel/unprivileged_userns_clone"),
            Path("/proc/sys/user/max_user_namespaces"),
        )
        if path.exists()
    ]
    return " ".join([started, str(os.geteuid()), python, *settings])


def _probe(
    interpreter: Interpreter, program: str, environment: Mapping[str, str], directory: Path, module: str
) -> Tier:
    reasons = []
    for number in (1, 2):
        if number == 2 and os.geteuid() == 0:
            reasons.append(_AS_ROOT)
            break
        answer = _try(number, interpreter, program, environment, directory, module)
        if isinstance(answer, str):
            reasons.append(f"tier {number}: {answer}")
            continue
        leaks = sorted(act for act, outcome in answer["acts"].items() if (outcome == "done") != (act == ALLOWED))
        if leaks:
            reasons.append(f"tier {number} does not hold: {', '.join(leaks)}")
            continue
        return Tier(number, answer["landlock"], "; ".join(reasons), tuple(answer["acts"].items()))
    return Tier(0, 0, "; ".join(reasons))


def _try(
    number: int, interpreter: Interpreter, program: str, environment: Mapping[str, str], directory: Path, module: str
) -> dict[str, Any] | str:
    """What a child found when it had confined itself, or why it could not."""
    with _targets(directory) as (workspace, targets):
        uid = uid_of(workspace.name) if os.geteuid() == 0 else None
        if uid is not None:
            os.chown(workspace, uid, uid)
        scratch = workspace.parent / "scratch"
        scratch.mkdir()
        plan = confined(
            tier=number,
            landlock=FULL_LANDLOCK if number == 2 else 0,
            python=interpreter,
            packages=None,
            workspace=workspace,
            uid=uid,
            access=Access(),
            resources=Resources(),
            surroundings=Surroundings((directory,), environment, (str(bootstrap.GUEST),)),
            scratch=scratch,
        )
        try:
            return _ask(plan, targets, program, environment, module)
        except (wire.WireError, OSError, KeyError, TypeError) as error:
            return f"the trial broke off: {error}"


def _ask(
    plan: Plan, targets: Mapping[str, Any], python: str, environment: Mapping[str, str], module: str
) -> dict[str, Any] | str:
    ours, theirs = socket.socketpair()
    ours.settimeout(_TIMEOUT_S)
    with ours:
        with theirs:
            child = subprocess.Popen(
                bootstrap.command(python, module, str(theirs.fileno())),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        try:
            channel = wire.Channel(ours)
            channel.send(frames.build("confine", plan=plan))
            channel.send(frames.build("try", targets=targets))
            while True:
                header, payload = channel.recv()
                frames.check(header, frames.KERNEL, len(payload))
                if header["type"] == "refused":
                    return str(header["reason"])
                if header["type"] == "tried":
                    return header
        finally:
            child.kill()
            child.wait()


@contextlib.contextmanager
def _targets(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A workspace, and things of the host that would answer if a confined process could reach them."""
    place = Path(tempfile.mkdtemp(prefix=directories.SCRATCH, dir=directory))
    abstract = f"\0kernelrepl-{secrets.token_hex(8)}"
    try:
        with contextlib.ExitStack() as stack:
            workspace = place / secrets.token_hex(8)
            workspace.mkdir()
            (place / "secret").write_text("secret")
            (place / "secret").chmod(0o644)
            port = stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
            for address in (str(place / "s"), abstract):
                listener = stack.enter_context(socket.socket(socket.AF_UNIX))
                listener.bind(address)
                listener.listen()
            (place / "s").chmod(0o777)
            targets = {
                "secret": str(place / "secret"),
                "port": port,
                "socket": str(place / "s"),
                "abstract": abstract,
                "pid": os.getpid(),
            }
            yield workspace, targets
    finally:
        shutil.rmtree(place, ignore_errors=True)
