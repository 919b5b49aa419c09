"""Settings of IPython, and what code of the session has hung into it. Runs in the kernel."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from kernelrepl.guest.origin import is_of_session
from kernelrepl.guest.settings.options_table import Options, remembered, same

_LISTS = ("ast_transformers", "input_transformers_cleanup", "input_transformers_post")
_PLAIN = (str, int, float, bool, list, dict, tuple, set, type(None))
_PRINTERS = ("type_printers", "deferred_printers", "singleton_printers")
_RELOADS = ("enabled", "check_all", "autoload_obj", "modules", "skip_modules")


def ipython_tables(shell: Any) -> tuple[Options, ...]:
    """The tables of one shell; none for what is no whole shell."""
    if not hasattr(shell, "configurables"):
        return ()
    of = _Shell(shell)

    def table(name: str, state: Callable[[], Any], read: Callable[[], dict[Any, Any]], write: Any) -> Options:
        return Options(f"IPython {name}", "IPython", remembered(state, read), write, dict)

    return (
        Options("IPython", "IPython", of.traits, of.set_trait, of.given, of_shell=True),
        Options("IPython mode", "IPython", of.modes, of.set_mode),
        table("formatter", of.printer_tables, of.printers, of.set_printer),
        table("event", lambda: shell.events.callbacks, of.callbacks, of.set_callback),
        table("magic", lambda: shell.magics_manager.magics, of.magics, of.set_magic),
        table("transformer", of.lists, of.transformers, of.set_transformer),
    )


def count_printers(shell: Any) -> list[int]:
    """What tells that a library has registered some, for code that says no word of the shell."""
    formatters = getattr(getattr(shell, "display_formatter", None), "formatters", {})
    return [len(getattr(one, "type_printers", ())) for one in formatters.values()]


class _Shell:
    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._names: dict[type, tuple[str, ...]] = {}
        self._formatters: dict[str, Any] = {}
        self._printers: dict[tuple[str, str], dict[Any, Any]] = {}
        self._given: dict[str, dict[str, Any]] = {}
        """What the session has not set: how each configurable was at first, and by default one that came later."""

    def _configured(self) -> Iterator[tuple[str, Any]]:
        seen: set[str] = set()
        others = self._shell.display_formatter.formatters.values()
        for one in (*self._shell.configurables, *others):
            name = type(one).__name__
            if one and name not in seen:
                seen.add(name)
                yield name, one

    def traits(self) -> dict[Any, Any]:
        found = {}
        first = not self._given
        for name, one in self._configured():
            kind = type(one)
            if kind not in self._names:
                self._names[kind] = tuple(one.trait_names(config=True))
            values = {trait: one._trait_values[trait] for trait in self._names[kind] if trait in one._trait_values}
            if name not in self._given:
                self._given[name] = {trait: copy.copy(value) for trait, value in values.items()} if first else {}
            for trait, value in values.items():
                if trait not in self._given[name]:
                    self._given[name][trait] = one.trait_defaults(trait)
                if type(value) in _PLAIN and not same(value, self._given[name][trait]):
                    found[name, trait] = copy.copy(value)
        return found

    def given(self) -> dict[Any, Any]:
        """What is no difference: none is, once they have been looked at."""
        self.traits()
        return {}

    def set_trait(self, key: tuple[str, str], value: Any) -> None:
        name, trait = key
        if name == "InlineBackend":
            from matplotlib_inline.config import InlineBackend

            figures = InlineBackend.instance(parent=self._shell)
            figures.shell = self._shell
            if figures not in self._shell.configurables:
                self._shell.configurables.append(figures)
        self.traits()
        setattr(dict(self._configured())[name], trait, value)

    def modes(self) -> dict[str, Any]:
        shell = self._shell
        found = {"xmode": shell.InteractiveTB.mode, "__future__": shell.compile.flags}
        reloader = self._reloader()
        if reloader is not None:
            found["autoreload"] = {name: getattr(reloader, name) for name in _RELOADS}
        found["pylab"] = "pylab" in shell.user_ns_hidden
        return found

    def _reloader(self) -> Any:
        return getattr(self._shell.magics_manager.registry.get("AutoreloadMagics"), "_reloader", None)

    def set_mode(self, key: str, value: Any) -> None:
        shell = self._shell
        if key == "xmode":
            shell.InteractiveTB.set_mode(mode=value)
        elif key == "__future__":
            shell.compile.flags = value
        elif key == "autoreload":
            for name, one in value.items():
                setattr(self._reloader(), name, one)
        else:
            self._import_pylab()

    def _import_pylab(self) -> None:
        """Bind what `%pylab` binds, except what the session has bound to other things since."""
        from IPython.core.pylabtools import import_pylab

        shell, names = self._shell, dict[str, Any]()
        import_pylab(names, True)
        for name, value in names.items():
            shell.user_ns.setdefault(name, value)
            shell.user_ns_hidden[name] = value

    def printer_tables(self) -> dict[tuple[str, str], dict[Any, Any]]:
        formatters = self._shell.display_formatter.formatters
        if self._formatters != formatters:
            self._formatters = dict(formatters)
            self._printers = {
                (mime, table): getattr(formatter, table)
                for mime, formatter in formatters.items()
                for table in _PRINTERS
                if hasattr(formatter, table)
            }
        return self._printers

    def printers(self) -> dict[Any, Any]:
        return {
            (mime, table, kind): printer
            for (mime, table), printers in self.printer_tables().items()
            for kind, printer in printers.items()
            if is_of_session(printer) or is_of_session(kind) or _is_made_by_a_call(printer)
        }

    def set_printer(self, key: Any, value: Any) -> None:
        mime, table, kind = key
        getattr(self._shell.display_formatter.formatters[mime], table)[kind] = value

    def callbacks(self) -> dict[Any, Any]:
        return {
            (event, index): callback
            for event, callbacks in self._shell.events.callbacks.items()
            for index, callback in enumerate([one for one in callbacks if is_of_session(one)])
        }

    def set_callback(self, key: Any, value: Any) -> None:
        self._shell.events.register(key[0], value)

    def magics(self) -> dict[Any, Any]:
        return {
            (kind, name): magic
            for kind, magics in self._shell.magics_manager.magics.items()
            for name, magic in magics.items()
            # One of IPython's that has not been loaded yet would be, by any question.
            if not type(magic).__module__.startswith("IPython") and is_of_session(magic)
        }

    def set_magic(self, key: Any, value: Any) -> None:
        kind, name = key
        self._shell.register_magic_function(value, kind, name)

    def lists(self) -> list[list[Any]]:
        return [getattr(self._shell, where) for where in _LISTS]

    def transformers(self) -> dict[Any, Any]:
        return {
            (where, index): one
            for where in _LISTS
            for index, one in enumerate([one for one in getattr(self._shell, where) if is_of_session(one)])
        }

    def set_transformer(self, key: Any, value: Any) -> None:
        getattr(self._shell, key[0]).append(value)


_DRAWING = frozenset({"IPython", "ipykernel", "kernelrepl", "matplotlib_inline"})
"""Packages that register what shows figures, by themselves."""


def _is_made_by_a_call(printer: Any) -> bool:
    """Whether a library's function was made when another one was called, as `sympy.init_printing()` makes some."""
    module = getattr(printer, "__module__", None) or ""
    return "<locals>" in getattr(printer, "__qualname__", "") and module.partition(".")[0] not in _DRAWING
