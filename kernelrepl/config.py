"""This module reads the settings: from the environment (KERNELREPL_…), else config.toml, else defaults."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kernelrepl import discovery
from kernelrepl.errors import InvalidSettings
from kernelrepl.model import MAX_HISTORY_BYTES, Limits, Resources
from kernelrepl.sessions.policy import Retention

PREFIX = discovery.PREFIX


_SIZES = TypeAdapter(ByteSize)


def _limit(value: Any) -> Any:
    """Return None, which is no limit, for 0 and "unlimited"."""
    lifted = (
        value.strip().lower() in ("0", "unlimited") if isinstance(value, str) else value is not False and value == 0
    )
    return None if lifted else value


def _size(value: Any) -> Any:
    """Return the number of bytes of a text with a unit, such as 4GB or 512 MiB."""
    if not isinstance(value, str) or not value.strip()[-1:].isalpha():
        return value
    try:
        return int(_SIZES.validate_python(value.strip()))
    except ValidationError:
        raise ValueError("a number of bytes, a size like 4GB, or 'unlimited'") from None


def _byte_limit(value: Any) -> Any:
    """Return what `_limit` does; a size may have a unit."""
    lifted = _limit(value)
    return None if lifted is None else _size(lifted)


def _history(value: Any) -> Any:
    """Return None, which is no limit, for "unlimited" only: a history of 0 bytes has a meaning."""
    if isinstance(value, bool):
        raise ValueError("a number of bytes or 'unlimited', not a truth value")
    return None if isinstance(value, str) and value.strip().lower() == "unlimited" else _size(value)


def _paths(value: Any) -> Any:
    """Split the text of a variable as PATH is split; the file has a list."""
    return tuple(part for part in value.split(os.pathsep) if part) if isinstance(value, str) else value


def _names(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _packages(value: Any) -> Any:
    """Return a word, or the names in the form in which indexes compare them."""
    names = _names(value)
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        return value
    if len(names) == 1 and names[0] in ("ask", "off"):
        return names[0]
    wrong = [
        name for name in names if name != "*" and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name)
    ]
    if wrong or not names:
        raise ValueError(f"{wrong[0]!r} is no name of a package" if wrong else "give names, '*', 'ask' or 'off'")
    return tuple(names)


Packages = Annotated[Literal["ask", "off"] | tuple[str, ...], BeforeValidator(_packages), NoDecode]
Paths = Annotated[tuple[str, ...], BeforeValidator(_paths), NoDecode]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$")]
Modules = Annotated[tuple[ModuleName, ...], BeforeValidator(_names), NoDecode]
ByteLimit = Annotated[Annotated[int, Field(gt=0)] | None, BeforeValidator(_byte_limit)]
HistoryLimit = Annotated[Annotated[int, Field(ge=0)] | None, BeforeValidator(_history)]
CountLimit = Annotated[Annotated[int, Field(ge=16)] | None, BeforeValidator(_limit)]
LiveLimit = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_limit)]
DayLimit = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_limit)]


Directory = Annotated[Path, AfterValidator(lambda path: discovery.absolute(path, "the directory"))]


def _program(value: str) -> str:
    """Return the path of a program, so that each start uses the same one. A missing program is reported later."""
    path = os.path.expanduser(value)  # noqa: PTH111 - `Path` would make other texts of some
    if "/" in path:
        if not path.startswith("/"):
            raise ValueError("a program is a path that begins with / or ~/, or the name of one in a directory of PATH")
        return path
    found = shutil.which(path)
    return found if found is not None and found.startswith("/") else path


Program = Annotated[str, AfterValidator(_program)]


class _Environment(EnvSettingsSource):
    """This source ignores empty paths: hosts that fill in a template leave them where nobody chose one.

    A variable whose name is almost that of a setting is refused. Others are not: whatever starts a program may name
    variables after it.
    """

    def __call__(self) -> dict[str, Any]:
        found = {name: value for name, value in super().__call__().items() if value != "" or name not in _PLACES}
        for variable in self.env_vars:
            name = variable.lower().removeprefix(PREFIX.lower())
            if name in Settings.model_fields or name == variable.lower():
                continue
            if close := difflib.get_close_matches(name, Settings.model_fields, 1, _ALIKE):
                written = f"{PREFIX}{name.upper()}"
                raise InvalidSettings(f"{written} is no setting; did you mean {PREFIX}{close[0].upper()}?")
        if found.pop("sandbox", "on") != "on":
            raise InvalidSettings(
                f'{PREFIX}SANDBOX does not switch the sandbox off: only a person does, with sandbox = "off" in'
                f" {discovery.config_file()}"
            )
        return found


_PLACES = ("data_dir", "runtime_dir", "python")
_ALIKE = 0.8


class Settings(BaseSettings):
    """Each field is a setting with its default and its meaning; docs/settings.md says the same to users."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid")

    data_dir: Directory = Field(
        default_factory=lambda: discovery.default_data_dir(), description="where the database and the workspaces are"
    )
    runtime_dir: Directory | None = Field(default=None, description="where the sockets are; its path must be short")
    python: Program = Field(default=sys.executable, min_length=1, description="the interpreter that runs kernels")
    max_variable_bytes: ByteLimit = Field(
        default=10_000_000, description="the largest variable that is saved, in bytes"
    )
    max_session_bytes: ByteLimit = Field(default=100_000_000, description="the most one session may store, in bytes")
    max_history_bytes: HistoryLimit = Field(
        default=MAX_HISTORY_BYTES,
        description="the most that the earlier states of one session may take, in bytes, the oldest go first; 0 keeps"
        " none, unlimited keeps all until the session is deleted",
    )
    max_memory_bytes: ByteLimit = Field(
        default=4_000_000_000, description="the most memory a kernel with all its processes may take, in bytes"
    )
    max_processes: CountLimit = Field(default=512, description="the most processes and threads of one kernel")
    max_open_files: int = Field(
        default=512, ge=64, le=1_000_000, description="the most files that one process of a kernel has open"
    )
    max_workspace_bytes: ByteLimit = Field(
        default=1_000_000_000, description="the most that the files of one session may take, in bytes"
    )
    max_workspace_files: CountLimit = Field(default=100_000, description="the most files of one session")
    max_tmp_bytes: ByteLimit = Field(
        default=512_000_000, description="the most that a kernel's /tmp, and its /dev/shm, may hold, in bytes"
    )
    allow_read: Paths = Field(
        default=(), description="files and folders that new sessions may read, beside their own workspace"
    )
    allow_write: Paths = Field(default=(), description="files and folders that new sessions may also write to")
    packages: Packages = Field(
        default="ask",
        description='the packages that code of a session may have installed for itself: names, or "*" for all; "ask"'
        ' asks you, and "off" refuses what code asks for',
    )
    max_package_bytes: ByteLimit = Field(
        default=2_000_000_000, description="the most that the packages of one session may take, in bytes"
    )
    sandbox: Literal["on", "off"] = Field(
        default="on", description='"off" runs kernels with your own rights; only the config file can say it'
    )
    max_output_chars: int = Field(
        default=20_000, ge=200, description="the longest stdout, stderr or result in a reply, in characters"
    )
    structured: Literal["auto", "on", "off"] = Field(
        default="auto",
        description='whether replies to an MCP client have structured content beside their text and images; "auto" by'
        " what is known of the client",
    )
    save_deadline_s: float = Field(default=10.0, gt=0, description="how long saving one value may take, in seconds")
    idle_timeout_s: float = Field(
        default=900.0, gt=0, description="after this many idle seconds a kernel is stopped; its session stays"
    )
    warm_start: Literal["on", "off"] = Field(
        default="on", description='"off" starts each kernel as a new interpreter, which takes longer and less memory'
    )
    standby: int = Field(
        default=2, ge=0, le=64, description="how many kernels are kept ready for new sessions, while nothing runs"
    )
    preload: Modules = Field(
        default=("numpy", "pandas", "matplotlib.pyplot", "jedi"),
        description="modules that are loaded once for all kernels that start, as far as there are such",
    )
    max_live: LiveLimit = Field(
        default=50, description="how many kernels there are at most; the one at rest for longest makes room for another"
    )
    max_live_bytes: ByteLimit = Field(
        default_factory=lambda: os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2,
        description="how much memory all kernels together take until those at rest make room, in bytes; half of what"
        " the machine has, if nothing else is said",
    )
    inactive_days: DayLimit = Field(default=7.0, description="after this many days without use a session is inactive")
    delete_days: DayLimit = Field(default=30.0, description="after this many days without use a session is deleted")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = TomlConfigSettingsSource(settings_cls, discovery.config_file())
        return init_settings, _Environment(settings_cls), file

    @model_validator(mode="after")
    def _inactive_before_deleted(self) -> Self:
        if self.delete_days is not None and (self.inactive_days is None or self.delete_days < self.inactive_days):
            raise ValueError(
                f"delete_days = {self.delete_days:g} is shorter than inactive_days ="
                f" {self.inactive_days or 'unlimited'}: a session is inactive before it is deleted"
            )
        return self

    def retention(self) -> Retention:
        return Retention(self.inactive_days, self.delete_days)

    def limits(self) -> Limits:
        return Limits(self.max_variable_bytes, self.max_session_bytes, self.save_deadline_s)

    def resources(self) -> Resources:
        return Resources(
            self.max_memory_bytes,
            self.max_processes,
            self.max_open_files,
            self.max_workspace_bytes,
            self.max_workspace_files,
            self.max_tmp_bytes,
        )


class _GivenSettings(Settings):
    """These come from nowhere but from whoever makes them, else from defaults."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


SESSION_SETTINGS = discovery.SESSION_SETTINGS


def load(overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return what environment and file say now. Raises InvalidSettings, which names the setting and its value."""
    file = discovery.config_file()
    if file.is_dir() or (file.is_symlink() and not file.exists()):
        raise InvalidSettings(f"{file} is no file; remove it or set {PREFIX}CONFIG to another one")
    return _made(Settings, overrides or {})


def _made(kind: type[Settings], values: Mapping[str, Any]) -> Settings:
    file = discovery.config_file()
    try:
        return kind(**values)
    except ValidationError as error:
        raise InvalidSettings(_explain(error)) from error
    except (OSError, ValueError) as error:
        raise InvalidSettings(f"{file} cannot be read: {error}; correct it") from error


def for_client(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """Return the settings for sessions that one client creates: its own environment wins over the keeper's.

    What has changed in the file since the keeper started counts for no client.
    """
    own = {
        name: environment[PREFIX + name.upper()] for name in SESSION_SETTINGS if PREFIX + name.upper() in environment
    }
    if own.get("python") == "":
        del own["python"]
    return _made(_GivenSettings, {**settings.model_dump(exclude_unset=True), **own}) if own else settings


def dump(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON has them; `python` is None where each client has its own."""
    chosen = {} if "python" in settings.model_fields_set else {"python": None}
    return {**settings.model_dump(mode="json"), **chosen}


def waiting(settings: Settings, running: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, tuple[Any, Any]]:
    """Return what a client's settings say and its keeper does not have before its next start: both values, by name.

    running: the keeper's, as `dump` gives them. What the client brings along for its own sessions waits for nothing.
    """
    here = dump(settings)
    own = {name for name in SESSION_SETTINGS if environ.get(PREFIX + name.upper())} | {"data_dir"}
    return {
        name: (here[name], running[name])
        for name in Settings.model_fields
        if name not in own and name in running and running[name] != here[name]
    }


def origins(environ: Mapping[str, str]) -> dict[str, str]:
    """Return for each setting the origin of its value: the variable, the path of the file, or "default"."""
    file = discovery.config_file()
    in_file = set(TomlConfigSettingsSource(Settings, file)()) if file.exists() else set()
    found = {}
    for name in Settings.model_fields:
        variable = PREFIX + name.upper()
        found[name] = variable if variable in environ else str(file) if name in in_file else "default"
    return found


def _explain(error: ValidationError) -> str:
    parts = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"] if part in Settings.model_fields) or str(problem["loc"][0])
        if problem["type"] == "extra_forbidden":
            parts.append(f"there is no setting {name!r}")
        else:
            parts.append(f"{name} = {problem['input']!r}: {problem['msg']}")
    return "; ".join(parts) + f"; correct {PREFIX}… or {discovery.config_file()}"
