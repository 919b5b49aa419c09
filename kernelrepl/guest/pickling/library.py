"""Objects of libraries that pickle refuses, or brings back as something else. Runs in the kernel."""

from __future__ import annotations

import argparse
import copyreg
import functools
import gc
import io
import itertools
import pickle
import random
import re
import sys
import types
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import recipes

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

_PARSING = (argparse.Action, argparse._ActionsContainer)


def reducer(kind: type) -> Any:
    """How objects of a kind are reduced; None leaves it to others."""
    if issubclass(kind, _PARSING) and kind.__reduce_ex__ is object.__reduce_ex__:
        return _reduce_parser
    if issubclass(kind, io.IOBase) and not issubclass(kind, io.BytesIO | io.StringIO):
        return _reduce_file
    if any(base.__module__ == "plotly.basedatatypes" for base in kind.__mro__) and not hasattr(kind, "comm"):
        return _reduce_part
    if kind.__name__ == "CallbackRegistry" and kind.__module__ == "matplotlib.cbook":
        return _reduce_callbacks
    return REDUCERS.get(kind)


def _reduce_parser(pickler: ComponentPickler, obj: Any) -> Any:
    state = dict(obj.__dict__)
    return copyreg.__newobj__, (type(obj),), state, None, None, recipes.sentinels  # type: ignore[attr-defined]


def _reduce_file(pickler: ComponentPickler, obj: Any) -> Any:
    for name in ("stdin", "stdout", "stderr"):
        if obj is getattr(sys, name) or obj is getattr(sys, f"__{name}__"):
            return recipes.attribute, ("sys", name)
    raise pickle.PicklingError("an open file cannot be saved; keep its path and open it again")


def _reduce_part(pickler: ComponentPickler, obj: Any) -> Any:
    """With what it belongs to: its own way to be pickled makes a copy of each part of a figure, tied to nothing."""
    if pickler.context.proven.doubts(type(obj)):
        pickler.doubtful[type(obj)] = obj
        pickler.telling.add(type(obj))
    return copyreg.__newobj__, (type(obj),), dict(obj.__dict__)  # type: ignore[attr-defined]


def whole(names: frozenset[str]) -> Any:
    """How to reduce what would come back without these attributes: its own way to be pickled does not mention them."""

    def reduce(pickler: ComponentPickler, obj: Any) -> Any:
        reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if not is_bare(obj, reduced):
            return reduced
        make, given = reduced[:2]
        items, pairs = (*reduced[3:5], None, None)[:2]
        state = {name: vars(obj)[name] for name in sorted(names & vars(obj).keys())}
        return make, given, state, items, pairs, recipes.object_state

    return reduce if names else None


def is_bare(obj: Any, reduced: Any) -> bool:
    """Whether what an object says to be pickled by leaves its attributes to whoever makes it again."""
    return isinstance(reduced, tuple) and (*reduced, None)[2] is None and bool(getattr(obj, "__dict__", None))


def _reduce_callbacks(pickler: ComponentPickler, obj: Any) -> Any:
    # matplotlib draws a number from the registry's counter to save it, so that every figure would look changed
    # by having been looked at. The counter is put back.
    reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    state = reduced[2]
    number = state.get("_cid_gen") if isinstance(state, dict) else None
    if isinstance(number, int):
        obj._cid_gen = itertools.count(number)
        # And it drops what was registered: what belongs to no window is kept.
        live = {signal: {cid: proxy() for cid, proxy in one.items()} for signal, one in obj.callbacks.items()}
        state["callbacks"] = {
            signal: {
                cid: one for cid, one in some.items() if cid in state["callbacks"].get(signal, ()) or _is_kept(one)
            }
            for signal, some in live.items()
        }
    return reduced


def _is_kept(callback: Any) -> bool:
    """Whether what a figure calls is of the session, or a part of the figure."""
    owner = getattr(callback, "__self__", callback)
    home = getattr(owner if isinstance(owner, types.FunctionType) else type(owner), "__module__", None) or ""
    return callback is not None and not home.startswith(
        ("matplotlib.backend", "matplotlib_inline", "ipympl", "builtins")
    )


def _reduce_key(pickler: ComponentPickler, obj: Any) -> Any:
    held = [one for one in gc.get_referents(obj) if one is not type(obj)]
    if len(held) != 1:
        raise pickle.PicklingError("a key made by functools.cmp_to_key cannot be saved; keep the value it was made of")
    return functools.cmp_to_key, (held[0],)


def _reduce_match(pickler: ComponentPickler, obj: re.Match[Any]) -> Any:
    """By what finds the same again. One of `finditer` is looked for where it is; of that its `pos` tells."""
    for start in dict.fromkeys((obj.pos, obj.start())):
        for how in ("match", "search", "fullmatch"):
            found = recipes.match(obj.re, obj.string, how, start, obj.endpos)
            if found is not None and found.regs == obj.regs and found.lastindex == obj.lastindex:
                return recipes.match, (obj.re, obj.string, how, start, obj.endpos)
    raise pickle.PicklingError("a match that is not found again cannot be saved; keep its groups")


REDUCERS: dict[type, Any] = {
    type(functools.cmp_to_key(len)): _reduce_key,  # type: ignore[arg-type]
    re.Match: _reduce_match,
    random.SystemRandom: lambda pickler, obj: (recipes.made, (random.SystemRandom,)),
}
