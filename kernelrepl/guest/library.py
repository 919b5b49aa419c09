"""Objects of the standard library that pickle refuses, or brings back as something else. Runs in the kernel."""

from __future__ import annotations

import argparse
import copyreg
import functools
import gc
import pickle
import random
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import recipes

if TYPE_CHECKING:
    from kernelrepl.guest.pickler import ComponentPickler

_PARSING = (argparse.Action, argparse._ActionsContainer)


def reducer(kind: type) -> Any:
    """How objects of a kind are reduced; None leaves it to others."""
    if issubclass(kind, _PARSING) and kind.__reduce_ex__ is object.__reduce_ex__:
        return _reduce_parser
    return REDUCERS.get(kind)


def _reduce_parser(pickler: ComponentPickler, obj: Any) -> Any:
    state = dict(obj.__dict__)
    return copyreg.__newobj__, (type(obj),), state, None, None, recipes.sentinels  # type: ignore[attr-defined]


def _reduce_key(pickler: ComponentPickler, obj: Any) -> Any:
    held = [one for one in gc.get_referents(obj) if one is not type(obj)]
    if len(held) != 1:
        raise pickle.PicklingError("a key made by functools.cmp_to_key cannot be saved; keep the value it was made of")
    return functools.cmp_to_key, (held[0],)


REDUCERS: dict[type, Any] = {
    type(functools.cmp_to_key(len)): _reduce_key,  # type: ignore[arg-type]
    random.SystemRandom: lambda pickler, obj: (recipes.made, (random.SystemRandom,)),
}
