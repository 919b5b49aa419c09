"""How the kernels of a keeper are confined: what a session was granted, where it may run, what is its own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kernelrepl.errors import AccessRefused, KernelStartFailed, SandboxTooWeak, SandboxUnavailable
from kernelrepl.kernel import Launch
from kernelrepl.model import Limits, Resources
from kernelrepl.packages import layers
from kernelrepl.sandbox import (
    Access,
    Exposure,
    Interpreter,
    Plan,
    Surroundings,
    Tier,
    bootstrap,
    check_write,
    confined,
    describe,
    led,
    locate,
    own_sources,
    resolve_access,
    resolved,
    sources,
    uid_of,
)
from kernelrepl.workspaces import directories
from kernelrepl.workspaces.entrances import led_by, of_kernels

OFF = "off"
_OF_THIS_PYTHON = ("PYTHONPATH", "VIRTUAL_ENV")
_PROGRAMS = "/usr/local/bin:/usr/bin:/bin"
_STRENGTH = {OFF: 0, "tier 2": 1, "tier 1": 2}


@dataclass(frozen=True)
class Grants:
    """What a person gives to a session, as it is written in the settings."""

    limits: Limits = field(default_factory=Limits)
    python: str | None = None
    resources: Resources = field(default_factory=Resources)
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    note: str = ""
    """What the first reply of a new session says of them."""


@dataclass(frozen=True)
class SessionSpec:
    """What a session keeps from its creation on. Paths are resolved."""

    limits: Limits
    python: str | None
    sandbox: str
    resources: Resources
    access: Access
    trust_output: bool = False
    """Whether a person lets its outputs act in notebooks: with scripts, and with widgets."""

    @classmethod
    def load(cls, stored: Mapping[str, Any]) -> SessionSpec:
        access = stored.get("access") or {}
        return cls(
            Limits(**stored["limits"]),
            stored["python"],
            stored["sandbox"],
            Resources(**stored.get("resources") or {}),
            Access(tuple(access.get("read", ())), tuple(access.get("write", ()))),
            stored.get("trust_output") is True,
        )

    def dump(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Confinement:
    """One for each keeper. tier: None where the person has switched the sandbox off."""

    tier: Tier | None
    python: str
    runtime_dir: Path
    never: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    exposure: Exposure = field(default_factory=Exposure, compare=False)

    @property
    def label(self) -> str:
        return OFF if self.tier is None else self.tier.label

    def kernel_environment(self, python: str) -> dict[str, str]:
        """What a kernel process is started with."""
        return start_environment(python, self.environment, self.runtime_dir, confined=self.tier is not None)

    def interpreter(self, python: str) -> Interpreter:
        """An interpreter that kernels may be started with. Raises KernelStartFailed, also for one that is exposed."""
        return describe(python, self.kernel_environment(python), self.exposure.written())

    def interpreter_of(self, client: str) -> tuple[str, str]:
        """Return the interpreter for new sessions of a program that runs in `client`, and why it is another one.

        It is the program's own if kernels may run there. Under another name in the same directory it is the keeper's,
        for which kernels are ready. Asks the interpreter, once.
        """
        if not client.startswith("/") or _place(client) == _place(self.python):
            return self.python, ""
        try:
            self.interpreter(client)
        except KernelStartFailed as error:
            why = str(error).removeprefix("the kernel could not be started: ")
            return self.python, f"new sessions of programs in {client} run in {self.python}: {why}"
        return client, ""

    def _sources(self, pythons: Iterable[str]) -> list[str]:
        """From where everything that is not confined has its code: this process, and all interpreters of kernels."""
        found = [*own_sources(), *self.exposure.loads(), *_PROGRAMS.split(os.pathsep)]
        for python in dict.fromkeys((self.python, *pythons, *self.exposure.pythons())):
            with contextlib.suppress(KernelStartFailed):  # who wants to run in it is told
                found += led(locate(python, self.kernel_environment(python)))
                found += sources(self.interpreter(python))
        return found

    def _resolve(self, python: str | None, read: Iterable[str], write: Iterable[str]) -> Access:
        write = tuple(write)
        sources = self._sources([python or self.python]) if write else ()
        return resolve_access(read, write, self.never, sources, self.exposure.written())

    def _expose(self, workspace: Path, python: str, spec: SessionSpec) -> Interpreter:
        """Start nothing that a session could have written, and let none write to what is started. Raises for both."""
        self.exposure.note(workspace.name, python, spec.access.write)
        if spec.access.write:
            found = self._sources([python])
            for path in spec.access.write:
                check_write(path, path, found)
        return self.interpreter(python)

    def fix(self, grants: Grants) -> SessionSpec:
        """What a new session gets. Raises AccessRefused. Reads the file system."""
        access = self._resolve(grants.python, grants.read, grants.write)
        return SessionSpec(grants.limits, grants.python, self.label, grants.resources, access)

    def regrant(
        self, spec: SessionSpec, read: Iterable[str], write: Iterable[str], revoke: Iterable[str]
    ) -> SessionSpec:
        """Add and take away paths; one that is granted again has only the new kind. Raises AccessRefused."""
        new = self._resolve(spec.python, read, write)
        gone = {*(os.path.realpath(path) for path in revoke), *revoke, *new.read, *new.write}
        access = Access(
            (*(path for path in spec.access.read if path not in gone), *new.read),
            (*(path for path in spec.access.write if path not in gone), *new.write),
        )
        return replace(spec, access=access)

    def regranted(self, workspace: str, spec: SessionSpec, *, lives: bool) -> None:
        """A session has other grants now. lives: a kernel that has the old ones may be there still."""
        self.exposure.note(workspace, spec.python or self.python, spec.access.write, before=lives)

    def admit(self, session_id: str, spec: SessionSpec) -> SessionSpec:
        """Let a stored session in, if no code of it runs with less in its way than before.

        What it was made in is raised to what it runs in now. Raises SandboxTooWeak.
        """
        then, now = _strength(spec.sandbox), _strength(self.label)
        if self.tier is not None and not self.tier.number:
            return spec  # nothing runs at all
        if now < then:
            raise SandboxTooWeak(session_id, spec.sandbox, self.label)
        return replace(spec, sandbox=self.label) if now > then else spec

    def launch(self, workspace: Path, spec: SessionSpec) -> Launch:
        """How to start the kernels of a session."""
        python = spec.python or self.python
        self.exposure.note(workspace.name, python, spec.access.write, before=True)
        environment = self.kernel_environment(python)
        launch = Launch(python, self.runtime_dir, workspace, environment, resources=spec.resources)
        if self.tier is None:

            def look() -> None:
                layers.prepare(workspace)
                self._expose(workspace, python, spec)

            return replace(launch, confine=look)
        scratch = directories.scratch(self.runtime_dir, workspace) if self.tier.number == 2 else None
        return replace(
            launch, confine=lambda: self._plan(python, workspace, spec, scratch or Path("/tmp")), scratch=scratch
        )

    def _plan(self, python: str, workspace: Path, spec: SessionSpec, scratch: Path) -> Plan:
        assert self.tier is not None
        if not self.tier.number:
            raise SandboxUnavailable(self.tier.why)
        for path in (*spec.access.read, *spec.access.write):
            if not os.path.exists(path) or os.path.realpath(path) != path:  # noqa: PTH110
                raise AccessRefused(path, "is not there any more or leads elsewhere; put it back or delete the session")
        interpreter = self._expose(workspace, python, spec)
        environment = self.kernel_environment(python)
        return confined(
            tier=self.tier.number,
            landlock=self.tier.landlock,
            python=interpreter,
            workspace=workspace,
            packages=layers.prepare(workspace),
            uid=self._uid(workspace),
            access=spec.access,
            resources=spec.resources,
            surroundings=Surroundings(self.never, environment, (str(bootstrap.GUEST),)),
            scratch=scratch,
        )

    def _uid(self, workspace: Path) -> int | None:
        """The user that a kernel becomes; None: it stays who the keeper is."""
        return uid_of(workspace.name) if self.tier is not None and os.geteuid() == 0 else None

    def make_workspace(self, workspace: Path) -> None:
        """Make the directory of a session and give it to whoever its kernel runs as. Raises OSError."""
        directories.make(workspace, self._uid(workspace))

    def make_temporary_workspace(self) -> Path:
        """One that is removed after its only execution. Raises OSError."""
        workspace = directories.make_temporary(self.runtime_dir)
        self.make_workspace(workspace)
        return workspace


def _strength(label: str) -> int:
    return _STRENGTH.get(label.split(",")[0], 0)


def exposed(always: Iterable[Path], python: str, granted: Iterable[tuple[str, Mapping[str, Any]]]) -> Exposure:
    """Where sessions write: below `always` their workspaces, and what they have been granted, as it is stored."""
    exposure = Exposure(resolved(always))
    for workspace, stored in granted:
        spec = SessionSpec.load(stored)
        exposure.note(workspace, spec.python or python, spec.access.write)
    return exposure


def _place(python: str) -> tuple[str, str]:
    """What two names of one interpreter in one environment have in common."""
    directory, _ = os.path.split(python)
    return os.path.realpath(directory), os.path.realpath(python)


def _beside(python: str) -> tuple[str, ...]:
    """The directory of a program that is given by its path."""
    return (os.path.dirname(python),) if python.startswith("/") else ()  # noqa: PTH120


def start_environment(
    python: str, environment: Mapping[str, str], runtime_dir: Path, *, confined: bool
) -> dict[str, str]:
    """What of an environment a process is started with: nothing that leads another interpreter to packages of this one.

    confined: it will be. Before, it finds no program in a directory of the person's; after it, a session has its own
    PATH.
    """
    ours = {} if python == sys.executable else dict.fromkeys(_OF_THIS_PYTHON)
    found = {name: value for name, value in environment.items() if name not in ours}
    if confined:
        found.pop("TMPDIR", None)
        found["PATH"] = os.pathsep.join(dict.fromkeys((*_beside(python), *_PROGRAMS.split(os.pathsep))))
    return {**found, "IPYTHONDIR": str(runtime_dir / "ipython")}


def base_environment(environ: Mapping[str, str], cache_dir: Path, places: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a kernel: nothing of the person's but what Python needs to find its way.

    places: where sessions write; nothing in there leads to one.
    """
    places = tuple(places)
    found = of_kernels(environ, places)
    found.setdefault("LANG", "C.UTF-8")
    if cache_dir.is_absolute() and led_by(str(cache_dir), places) is None:
        found["MPLCONFIGDIR"] = str(cache_dir / "matplotlib")
    found["PATH"] = found.get("PATH", os.defpath)
    return found
