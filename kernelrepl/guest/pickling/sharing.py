"""Which objects of a stream may be tied to others: a change of them shows there too. Runs in the kernel."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions
import logging
import pathlib
import pickle
import re
import sys
import types
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler, PicklingContext

_NEVER_ALIASED: tuple[type, ...] = (
    str, bytes, int, float, complex, type(None), tuple, frozenset, range, slice, type,
    types.BuiltinFunctionType, types.ModuleType, types.CodeType, types.MethodType,
    types.GenericAlias, types.UnionType, property, staticmethod, classmethod,
    datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal,
    fractions.Fraction, uuid.UUID, pathlib.PurePath, re.Pattern, enum.Enum, logging.Logger,
    pickle.PickleBuffer, type(Ellipsis), type(NotImplemented),
)  # fmt: skip
"""Types whose identity nobody can observe through a change: they never unite two components."""


def _count_ours() -> int:
    """The references to an object that only its pickler knows, the way `shareable` counts them."""
    memo = [object()]
    copied = {0: (0, memo[0])}
    return min(sys.getrefcount(value) for _, (_, value) in copied.items())


_OURS_ONLY = _count_ours()


def shareable(memo: dict[int, tuple[int, Any]], pickler: ComponentPickler) -> Iterator[Any]:
    """The objects in a pickler's memo that others may share with it, so that a change shows in both."""
    context = pickler.context
    kept = {id(temporary) for temporary in pickler.kept}
    for key, (_, value) in memo.items():
        kind = type(value)
        known = context.shareable_kinds.get(kind)
        if known is None:
            known = context.shareable_kinds[kind] = _can_be_aliased(kind, context)
        if not known:
            continue
        if kind is types.FunctionType and key not in pickler.inline_functions:
            continue
        if sys.getrefcount(value) <= _OURS_ONLY or key in kept:
            continue  # made to be pickled, and gone with the memo
        if value is context.main_module or value is context.shell or context.singletons.find(value) is not None:
            continue
        yield value


def _can_be_aliased(kind: type, context: PicklingContext) -> bool:
    """Whether a change through one reference to an object of a kind can be seen through another."""
    if not issubclass(kind, _NEVER_ALIASED + context.arrays.never_aliased):
        return True
    # A text or a tuple cannot change, but one of a class of the session may have attributes.
    return context.is_own_class(kind) and not issubclass(kind, enum.Enum | type) and bool(kind.__dictoffset__)
