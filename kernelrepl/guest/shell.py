"""IPython's shell as a session needs it. Runs in the kernel."""

from __future__ import annotations

import sys
from typing import Any

from ipykernel.displayhook import ZMQShellDisplayHook
from ipykernel.zmqshell import ZMQInteractiveShell
from traitlets import Type


class GuestDisplayHook(ZMQShellDisplayHook):
    """Keeps `Out` small without a word about it: `Out` is a convenience and is not saved."""

    def cull_cache(self) -> None:
        kept = self.shell.user_ns.get("_oh", {})
        for number in sorted(kept)[: max(int(len(kept) * self.cull_fraction), 2)]:
            self.shell.user_ns.pop(f"_{number}", None)
            self.shell.user_ns_hidden.pop(f"_{number}", None)
            kept.pop(number, None)


class GuestShell(ZMQInteractiveShell):
    """IPython's shell; user code runs where interrupts may reach it, and only there."""

    displayhook_class = Type(GuestDisplayHook)

    async def run_code(self, code_obj: Any, result: Any = None, *, async_: bool = False) -> bool:
        kernel = self.kernel
        kernel.saving.mention(code_obj)
        shadowed = kernel.saving.lost_builtin(code_obj)
        if shadowed is not None:
            raise NameError(shadowed)
        with kernel.interrupts.user_code():
            return bool(await super().run_code(code_obj, result, async_=async_))

    def showtraceback(self, exc_tuple: Any = None, *args: Any, **kwargs: Any) -> Any:
        error = exc_tuple[1] if exc_tuple else sys.exc_info()[1]
        if isinstance(error, NameError):
            story = self.kernel.saving.story(getattr(error, "name", None))
            if story is not None:
                error.args = (story,)
        return super().showtraceback(exc_tuple, *args, **kwargs)
