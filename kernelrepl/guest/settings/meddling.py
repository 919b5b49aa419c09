"""What code of the session puts onto libraries: attributes of their classes, entries of their tables.

There is no cheap way to see that. So the code says when to look: when it, or code that it can call, assigns to a part
of a library, or calls what is named like a setter of one. Then everything that the library's modules hold is looked at
before the statement (or when the statement has loaded the library) and after the cell, some milliseconds, and what
differs comes back with the session if it can be saved. Runs in the kernel.
"""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import types
from collections.abc import Collection, Iterator
from importlib.machinery import ModuleSpec
from typing import Any

from kernelrepl.guest import imports
from kernelrepl.guest.neutral import is_a, name_of, space_of
from kernelrepl.guest.origin import is_of_session
from kernelrepl.guest.pickling.modules import is_another_file
from kernelrepl.guest.settings import contents
from kernelrepl.guest.settings.callees import IN_C, Said
from kernelrepl.guest.settings.contents import ABSENT, REPLACED, Copied, Path, found_at
from kernelrepl.guest.settings.options_table import is_plain, same
from kernelrepl.guest.settings.setters import KNOWN, sets

_NOT_LOOKED_AT = frozenset({"builtins", "__main__", "kernelrepl", "IPython", "ipykernel", "traitlets", "logging"})
_NOT_LOOKED_AT |= {"warnings", "decimal", "signal", "gc"}
_PASSING = re.compile(r"__|.*(cache|memo|lock|_abc_impl|counter)", re.IGNORECASE)
_MACHINERY = frozenset({*sys.stdlib_module_names, "zmq", "tornado", "jupyter_client", "cloudpickle", "xxhash", "comm"})
"""What a kernel itself runs on: what replaces a part of it does not come back on its own."""
_SETTERS = re.compile(r"_*(set|enable|disable|register|unregister|use_|install|seed|manual_seed)")
_SEEDS = re.compile(r"(set|manual)_(\w+_)?seed")
"""Setters of what a library draws random numbers from, which nobody can ask for."""
_OUT_OF_SIGHT = {
    "sys": {"addaudithook", "set_asyncgen_hooks", "setdlopenflags", "set_coroutine_origin_tracking_depth"},
    "codecs": {"register"},
    "os": {"register_at_fork", "putenv", "unsetenv", "setsid", "setpgid", "setpgrp", "sched_setscheduler", "chroot"},
    "signal": {"set_wakeup_fd", "siginterrupt", "pthread_sigmask", "alarm", "setitimer"},
    "gc": {"freeze"},
    "faulthandler": {"register", "dump_traceback_later"},
    "sqlite3": {"enable_callback_tracebacks", "enable_shared_cache"},
    "syslog": {"openlog", "setlogmask"},
    "locale": {"textdomain", "bindtextdomain", "bind_textdomain_codeset"},
    "ctypes": {"set_errno"},
    "readline": {"set_completer", "set_history_length", "parse_and_bind"},
}
"""Functions of Python's own library whose effect nobody can ask for, or not exactly."""


class Meddling:
    """Compares libraries with what they were before the statement that may have changed them."""

    def __init__(self, in_tables: frozenset[str]) -> None:
        """in_tables: the libraries whose settings are known: their setters are not asked about."""
        self._in_tables = in_tables
        self._known: set[Path] = set()
        """Where code of the session has put something."""
        self._before: dict[str, list[Copied]] = {}
        self._modules: dict[str, Any] | None = None
        """All modules by name, before code that may have put others among them or in their places."""
        self._answers: dict[str, tuple[Any, Any]] = {}
        """What was answered by the counterpart of a setter that is about to be called, by its name, and whom to ask."""
        self._silent: set[str] = set()
        """Setters that are about to be called and have no counterpart, by name."""
        self._expected: set[str] = set()
        """Libraries that the statement loads and sets something in."""
        self._awaited: set[str] = set()
        """Names of setters in code that loads libraries."""
        self.bound: dict[str, Path] = {}
        """Names that code of the session has bound to what modules hold."""
        self.told: dict[str, str] = {}
        """What is not saved, by a name for people, and why."""
        self._lost: dict[str, tuple[Path, Any]] = {}
        """Where that is, and what was there before."""

    def notice(self, said: Said) -> None:
        """Code is about to run: look at the libraries that it may set something in."""
        if said.bound:
            self.bound.update(said.bound)
        if said.imported:
            self._expected |= said.tops & said.imported
            self._awaited |= said.setters
        tops = said.tops.union(*(_built_upon(module, name) for module, name in said.called))
        if tops:
            self._look({top for top in tops - _NOT_LOOKED_AT if not imports.is_own(sys.modules.get(top))})
            if "sys" in tops and self._modules is None:
                self._modules = dict(sys.modules)
        for module, name in said.called:
            self._ask(module, name)

    def arrived(self, module: types.ModuleType) -> None:
        """Something has been loaded by the statement that runs."""
        top = str(space_of(module).get("__name__")).partition(".")[0]
        if top in self._expected:
            before = {id(live) for _, live, _ in self._before.get(top, ())}
            names = contents.loaded([top])[top]
            new = [one for one in contents.copied(top, names, KNOWN) if id(one[1]) not in before]
            self._before.setdefault(top, []).extend(new)
        for name in self._awaited:
            self._ask(module, name)

    def _look(self, tops: Collection[str]) -> None:
        wanted = [top for top in tops if top not in self._before]
        if wanted:
            for top, names in contents.loaded(wanted).items():
                self._before[top] = list(contents.copied(top, names, KNOWN))

    def _ask(self, module: types.ModuleType, name: str) -> None:
        """Ask the counterpart of a setter: what it sets may be out of sight."""
        setter = space_of(module).get(name)
        if setter is None:
            return
        home = str(space_of(module).get("__name__"))
        where = f"{home}.{name}"
        public = "os" if home == "posix" else home.removeprefix("_")
        if name in _OUT_OF_SIGHT.get(public, ()) or _SEEDS.match(name):
            self._silent.add(f"{public}.{name}")
        elif sets(name) and where not in self._answers and where not in self._silent:
            top = home.partition(".")[0]
            spaces = [space_of(module), space_of(sys.modules.get(top, module))]
            asks = [space[name] for name in _counterparts(name) for space in spaces if callable(space.get(name))]
            for ask in asks if top not in self._in_tables else ():
                if (answer := _answer(ask)) is not ABSENT:
                    self._answers[where] = (ask, answer)
                    return
            in_sight = top in _MACHINERY or top == "numpy" or (asks and top in self._in_tables)
            if not in_sight and _SETTERS.match(name) and _is_in_c(setter):
                self._silent.add(where)

    def read(self) -> dict[Path, Any]:
        """What code of the session has put onto libraries and is still there."""
        for top, looked in self._before.items():
            lost: list[tuple[str, str, Path, Any]] = []
            for path, live, before in looked:
                for step, value in contents.differences(live, before):
                    self._note((*path, step), value, live, before, lost)
            if lost:
                name, why, place, original = lost[0]
                self._lost.setdefault(name, (place, original))
                self.told[name] = why + (f" (and {len(lost) - 1} others of {top})" if lost[1:] else "")
        self._conclude_asking()
        if self._modules is not None:
            self._note_modules(self._modules)
            self._modules = None
        self._before.clear()
        self._expected.clear()
        self._awaited.clear()
        for name, (place, original) in list(self._lost.items()):
            now = found_at(place) if place else None
            if place and (now is ABSENT or now is original):
                del self._lost[name], self.told[name]
        found = {}
        for path in list(self._known):
            value = found_at(path)
            if value is ABSENT:
                self._known.discard(path)
            else:
                found[path] = value
        return found

    def _note_modules(self, before: dict[str, Any]) -> None:
        """What is a module by a name that is not its own comes back, if no kernel runs on what it has replaced."""
        for name, module in list(sys.modules.items()):
            known = before.get(name, ABSENT)
            space = space_of(module)
            spec = space.get("__spec__")
            own_name = space.get("__name__") == name and type(spec) is ModuleSpec and spec.name == name
            if module is known or (own_name and not is_another_file(module)):
                continue  # imported, or imported again
            path: Path = ("sys", "modules", (name,))
            if known is not ABSENT and name.partition(".")[0] in _MACHINERY:
                where = f"sys.modules.{name}"
                self._lost.setdefault(where, (path, known))
                self.told[where] = "what replaces a module that kernels run on is not saved; put it there again"
            else:
                self._known.add(path)

    def _conclude_asking(self) -> None:
        lost = set(self.told)
        for name, (ask, answer) in self._answers.items():
            top = name.partition(".")[0]
            if not same(_answer(ask), answer) and not any(other.partition(".")[0] == top for other in lost):
                self._tell(name, "what was set by this call is not saved; call it again")
        for name in self._silent:
            self._tell(name, "what this call sets cannot be seen, nor saved; call it again")
        self._answers.clear()
        self._silent.clear()

    def _tell(self, name: str, why: str) -> None:
        self._lost.setdefault(name, ((), None))
        self.told[name] = why

    def _note(self, path: Path, value: Any, live: Any, before: Any, lost: list[tuple[str, str, Path, Any]]) -> None:
        step = path[-1]
        if is_a(step, str):
            new = step not in before
            own = _holds_own(value)
            if _PASSING.match(step) and not (is_a(live, type) and own):
                return
            if is_a(value, types.ModuleType) or step in KNOWN:
                return
            made = (new or before[step] is None) and not is_a(live, threading.local)
            if made and not own and not is_plain(value) and (new or not is_a(live, types.ModuleType)):
                return  # a library has made something when it was needed first
            plain = is_plain(value)
            top = str(path[0]).partition(".")[0]
            if is_a(live, types.ModuleType) and not own and top in self._in_tables:
                return  # of its own settings, which come back; what code itself puts there is known without a look
            what = None
            if is_a(live, types.ModuleType):
                what = "attributes of modules are"
            elif not new and top in _MACHINERY and not plain:
                what = "what replaces a part of a library is"
            elif not is_a(live, type) and not own and not plain:
                what = "objects of a library are"  # it may know its own by identity
            if what is not None:
                name, why = ".".join(map(str, path)), f"{what} not saved; set it again"
                lost.append((name, why, path, before.get(step, ABSENT)))
                return
        self._known.add(path)

    def put(self, path: Path, value: Any) -> None:
        """Put something back where it was."""
        owner, step = found_at(path[:-1]), path[-1]
        if (is_plain(value) or not is_a(owner, list | set)) and same(found_at(path), value):
            pass  # it has come with a name that is bound to it or to what holds it, and others may share it
        elif owner is ABSENT:
            raise AttributeError("there is no such place any more")
        elif is_a(step, str):
            setattr(owner, step, value)
        elif is_a(owner, dict):
            owner[step[0]] = value
        elif is_a(owner, set):
            owner.add(value)
        elif REPLACED in step:
            owner[step[0]] = value
        elif value not in owner:
            owner.append(value)
        self._known.add(path)

    def is_out_of_sight(self) -> bool:
        """Whether code of the session may be called by what no cell names."""
        return any(
            is_of_session(found_at(path))
            and not (is_a(path[-1], str) and path[-1].isidentifier() and path[-1][0] != "_")
            for path in self._known
        )


def _built_upon(module: types.ModuleType, name: str) -> set[str]:
    """The libraries that a setter of this one works with: what it sets may be there, as colours of matplotlib are."""
    setter = space_of(module).get(name) if sets(name) else None
    if setter is None or not is_a(setter, types.FunctionType) or setter.__module__ == "__main__":
        return set()
    used = [
        str(space_of(one).get("__name__")) for one in list(setter.__globals__.values()) if is_a(one, types.ModuleType)
    ]
    return {name.partition(".")[0] for name in used} - _MACHINERY


def _is_in_c(setter: Any) -> bool:
    """Whether a setter, or one of the same kind that it calls, is not written in Python: its effect is in no module."""
    if name_of(type(setter)) in IN_C:
        return True
    if not is_a(setter, types.FunctionType):
        return False
    names, space = setter.__code__.co_names, setter.__globals__
    called = [space.get(name) for name in names]
    called += [space_of(one).get(name) for one in called if is_a(one, types.ModuleType) for name in names]
    return any(name_of(type(one)) in IN_C and _SETTERS.match(str(getattr(one, "__name__", ""))) for one in called)


def _holds_own(value: Any) -> bool:
    """Whether something of the session is in a value: in a property, or in what a library has put around it."""
    if is_of_session(value):
        return True
    inner = [getattr(value, part, None) for part in ("fget", "fset")] if is_a(value, property) else []
    with contextlib.suppress(AttributeError, TypeError):
        inner += object.__getattribute__(value, "__dict__").values()
    return not is_a(value, type | types.ModuleType) and any(map(is_of_session, inner))


def _counterparts(setter: str) -> Iterator[str]:
    """Names of what answers with what a setter sets."""
    named = re.match(r"set(_?)(.+)", setter)
    if named is not None:
        yield from (f"get{named[1]}{named[2]}", f"is_{named[2]}")
        if re.search(r"_(count|limit|size|level|threads)$", named[2]):
            yield named[2]
    elif setter in ("enable", "disable"):
        yield "is_enabled"
    elif setter == "register":
        yield "_ncallbacks"  # of atexit


def _answer(ask: Any) -> Any:
    try:
        answer = ask()
    except BaseException:  # noqa: BLE001 - it wants to be asked more exactly
        return ABSENT
    return answer if is_plain(answer) else ABSENT
