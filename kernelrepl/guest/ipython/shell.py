"""IPython's shell as a session needs it. Runs in the kernel."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import traceback
import warnings
from typing import Any, NoReturn

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core import page
from IPython.core.error import UsageError
from IPython.core.events import available_events
from traitlets import Any as AnyTrait
from traitlets import Type, default, observe

from kernelrepl.guest import packages
from kernelrepl.guest.figures import Figures, GuestEvents, GuestFormatter
from kernelrepl.guest.interrupts import DeadlinePassed
from kernelrepl.guest.ipython import console, tracebacks
from kernelrepl.guest.ipython.mending import Repair

_FORMAT_S = 5.0
"""How long a traceback may take to format before it is written down as it is."""


class GuestDisplayHook(ZMQShellDisplayHook):
    """Keeps `Out` small without a word about it: `Out` is a convenience and is not saved."""

    def cull_cache(self) -> None:
        kept = self.shell.user_ns.get("_oh", {})
        for number in sorted(kept)[: max(int(len(kept) * self.cull_fraction), 2)]:
            self.shell.user_ns.pop(f"_{number}", None)
            self.shell.user_ns_hidden.pop(f"_{number}", None)
            kept.pop(number, None)

    def __call__(self, result: Any = None) -> None:
        __tracebackhide__ = True
        self.shell.kernel.interrupts.originals.set_aside()  # what shows a value is no code of the session
        super().__call__(result)

    def finish_displayhook(self) -> None:
        self.shell.mending.mend()  # it flushes the streams, which the cell may have broken
        super().finish_displayhook()


class GuestShell(ZMQInteractiveShell):
    """IPython's shell; user code runs where interrupts may reach it, and only there."""

    displayhook_class = Type(GuestDisplayHook)
    exiter = AnyTrait()
    mending: Repair = AnyTrait()  # type: ignore[assignment]
    _stood_in: tuple[BaseException, BaseException] | None = None
    _left_out = tracebacks.LeftOut()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # tqdm and others take this for a notebook: they draw with widgets, or warn that they cannot. Text it is.
        self.config.pop("IPKernelApp", None)
        warnings.filterwarnings("ignore", message="IProgress not found")

    def init_events(self) -> None:
        super().init_events()
        self._figures = Figures()
        self.events = GuestEvents(self, available_events, self._figures)
        self.events.register("pre_execute", self._clear_warning_registry)

    def init_display_formatter(self) -> None:
        self.display_formatter = GuestFormatter(self._figures, parent=self)
        self.configurables.append(self.display_formatter)

    @default("exiter")
    def _default_exiter(self) -> Any:
        return console.SessionExit(self)

    @functools.wraps(ZMQInteractiveShell.run_cell_async)
    async def run_cell_async(self, *args: Any, **kwargs: Any) -> Any:
        cell = super().run_cell_async(*args, **kwargs)
        kernel = self.kernel
        if not kernel.interrupts.awaits():
            return await cell
        # The task that ipykernel has made for it has a context of its own.
        task = asyncio.create_task(cell, context=kernel.context)
        with kernel.interrupts.awaiting(task):
            return await task

    # ipykernel asks for it at each cell.
    run_cell_async.__signature__ = inspect.signature(ZMQInteractiveShell.run_cell_async)  # type: ignore[attr-defined]

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> bool:
        kernel = self.kernel
        kernel.saving.mention(code_obj)
        shadowed = kernel.saving.restoring.lost_builtin(code_obj)
        if shadowed is not None:
            raise NameError(shadowed)
        with kernel.interrupts.user_code():
            kernel.debuggers.resume()
            try:
                failed = bool(await super().run_code(code_obj, result, async_=async_))
            finally:
                kernel.debuggers.pause()
            if result is not None and result.error_in_exec is not None:
                result.error_in_exec = self._readable(result.error_in_exec)
        self._stood_in = None
        if failed and kernel.forked and result is not None:
            _end_child(result.error_in_exec)
        self.mending.mend()
        return failed

    # Failures

    def _readable(self, error: BaseException) -> BaseException:
        """The error, or what stands in for it. Asked twice for each, and asking may take long."""
        if self._stood_in is None or not any(error is known for known in self._stood_in):
            self._stood_in = (error, tracebacks.readable(error))
        return self._stood_in[1]

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> Any:
        self.kernel.debuggers.pause()
        self.kernel.interrupts.originals.set_aside()
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if error is None:
            return super().showtraceback(exc_tuple, *args, **kwargs)
        if self.kernel.forked:
            if not isinstance(error, SystemExit):
                sys.stderr.write("".join(traceback.format_exception(error)))
            return None
        self.mending.mend()
        if isinstance(error, NameError):
            story = self.kernel.saving.restoring.story(getattr(error, "name", None))
            if story is not None:
                error.args = (story,)
        if isinstance(error, (KeyboardInterrupt, TimeoutError, *console.REFUSALS)):
            tracebacks.cut_machinery(error)
        if isinstance(error, SystemExit):
            # IPython goes on to tell how to leave a terminal.
            warnings.filterwarnings("ignore", message="To exit: use 'exit', 'quit'")
            return self._showtraceback(type(error), error, [f"SystemExit: {error}".removesuffix(": ")])
        shown = self._readable(error)
        with tracebacks.bounded(shown) as self._left_out:
            if tracebacks.has_group(shown):
                cells = self.compile._filename_map
                return self._showtraceback(type(shown), shown, tracebacks.with_groups(shown, cells))
            try:
                return super().showtraceback((type(shown), shown, tracebacks.of(shown)), *args, **kwargs)
            except Exception:  # noqa: BLE001 - an error of the session's may be of a class that answers nothing
                return self._showtraceback(type(shown), shown, self._plain(shown))

    def init_traceback_handlers(self, custom_exceptions: Any) -> None:
        super().init_traceback_handlers(custom_exceptions)
        structure = functools.partial(self._structured_traceback, self.InteractiveTB.structured_traceback)
        self.InteractiveTB.structured_traceback = structure

    def _structured_traceback(self, structure: Any, kind: Any, error: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As IPython does it, if that comes to an end: it may ask values for their texts, and colours any line."""
        if not isinstance(error, BaseException):
            return structure(kind, error, *args, **kwargs)
        interrupts = self.kernel.interrupts
        try:
            with interrupts.interruptible(), interrupts.deadline(_FORMAT_S):
                if not tracebacks.takes_long(error):
                    return structure(kind, error, *args, **kwargs)
        except (KeyboardInterrupt, DeadlinePassed):
            pass
        return self._plain(error)

    def _plain(self, error: BaseException) -> list[str]:
        return tracebacks.plain(error, self.compile._filename_map)

    def _format_exception_for_storage(self, exception: BaseException, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What has just been shown: IPython would format it once more."""
        return {
            "ename": type(exception).__name__,
            "evalue": str(self._readable(exception)),
            "traceback": list(getattr(self, "_last_traceback", None) or ()),
        }

    def _showtraceback(self, etype: Any, evalue: Any, stb: list[str]) -> None:
        self.mending.mend()
        hint = tracebacks.hint(evalue)
        lines = tracebacks.shortened(stb, self._left_out)
        self._left_out = tracebacks.LeftOut()
        super()._showtraceback(etype, evalue, lines if hint is None else [*lines, f"[hint] {hint}"])

    def show_usage_error(self, exc: Any) -> None:
        self._showtraceback(UsageError, exc, [f"UsageError: {exc}"])

    # What a terminal has and a session has not

    def init_hooks(self) -> None:
        super().init_hooks()
        self.set_hook("show_in_pager", page.as_hook(self.show_page), 1)

    def show_page(self, text: Any, start: int = 0, screen_lines: int = 0, pager_cmd: Any = None) -> None:
        """What IPython would show in a pager is output, where nobody has one."""
        data = text if isinstance(text, dict) else {"text/plain": text}
        if self._for_notebook():
            self.payload_manager.write_payload({"source": "page", "data": data, "start": start})
        else:
            self.display_pub.publish(data)

    def set_next_input(self, text: str, replace: bool = False) -> None:
        """What IPython would put into the next cell is output, for an agent that writes that cell."""
        if self._for_notebook():
            super().set_next_input(text, replace)
        else:
            self.display_pub.publish({"text/plain": text})

    def _for_notebook(self) -> bool:
        """Whether it is a Jupyter client that asked for what runs: it has cells, and a pager."""
        kernel = getattr(self, "kernel", None)
        return kernel is not None and "kernelrepl" in (kernel.get_parent("shell").get("metadata") or {})

    def system(self, cmd: str) -> None:
        self._run_command(cmd, self.var_expand(cmd, depth=1))

    system_raw = system_piped = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> list[str]:
        self._run_command(cmd, self.var_expand(cmd, depth=1))
        return []

    def _run_command(self, cmd: str, expanded: str) -> None:
        """Run no command line. One that installs packages is understood, and the keeper does it."""
        names = packages.wanted(expanded)
        if names is None:
            raise console.NoShell(cmd)
        self.kernel.saving.packages.install(names)

    def run_line_magic(self, magic_name: str, line: str, _stack_depth: int = 1) -> Any:
        __tracebackhide__ = True
        names = console.installs(magic_name, line)
        if names is not None:
            return self.kernel.saving.packages.install(names)
        refused = console.refusal("%", magic_name, line)
        if refused is not None:
            raise refused
        try:
            return super().run_line_magic(magic_name, line, _stack_depth + 1)
        finally:
            if (remark := console.remark(magic_name, line)) is not None:
                sys.stdout.write(f"{remark}\n")

    def run_cell_magic(self, magic_name: str, line: str, cell: str) -> Any:
        __tracebackhide__ = True
        names = console.installs(magic_name, line, cell)
        if names is not None:
            return self.kernel.saving.packages.install(names)
        refused = console.refusal("%%", magic_name, line, cell)
        if refused is not None:
            raise refused
        return super().run_cell_magic(magic_name, line, cell)

    @property
    def call_pdb(self) -> bool:
        return False

    @call_pdb.setter
    def call_pdb(self, wanted: bool) -> None:
        if wanted:
            self.kernel.debuggers.check()
            raise console.NoDebugger(console.FOR_ALL)

    def debugger(self, force: bool = False) -> None:
        """Open the debugger where the last error was raised. Raises NoDebugger if nobody can answer."""
        self.kernel.debuggers.check()
        super().debugger(force)

    @observe("exit_now")
    def _update_exit_now(self, change: Any) -> None:
        """The end of a kernel is not for its cells to decide."""

    def ask_exit(self) -> NoReturn:
        raise SystemExit


def _end_child(error: BaseException) -> NoReturn:
    """A child that the cell forked ends as a script would: the reply is not its own."""
    code = error.code if isinstance(error, SystemExit) else 1
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)
