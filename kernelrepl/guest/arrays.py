"""How arrays and frames are pickled: memory that is shared stays shared, memory that only looks shared does not.

numpy and pandas are used only when the session has imported them. Runs in the kernel.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import recipes

if TYPE_CHECKING:
    from kernelrepl.guest.pickler import ComponentPickler

OUT_OF_BAND_BYTES = 64 << 10
"""Arrays from this size on leave the stream: they are hashed and stored without a copy."""


class ArraySupport:
    """The types of numpy and pandas as far as they are loaded; made anew for each pass."""

    def __init__(self) -> None:
        self._np = sys.modules.get("numpy")
        if self._np is not None and not hasattr(self._np, "ndarray"):
            self._np = None  # an import that is still going on, or failed half way
        self._frames: tuple[type, ...] = ()
        self.never_aliased: tuple[type, ...] = ()
        if self._np is not None:
            self.never_aliased = (self._np.generic, self._np.dtype)
        pandas = sys.modules.get("pandas")
        if pandas is not None and hasattr(pandas, "DataFrame"):
            api = pandas.api.extensions
            self._frames = (pandas.DataFrame, pandas.Series, pandas.Index, api.ExtensionArray)
            self.never_aliased += (
                pandas.Index, pandas.Timestamp, pandas.Timedelta, pandas.Period, pandas.Interval,
                api.ExtensionDtype, pandas.tseries.offsets.BaseOffset, type(pandas.NaT), type(pandas.NA),
            )  # fmt: skip

    def reduce(self, pickler: ComponentPickler, obj: Any, kind: type) -> Any:
        if self._np is not None and kind is self._np.ndarray:
            return self._reduce_array(pickler, obj)
        if self._frames and isinstance(obj, self._frames):
            return self._reduce_frame(pickler, obj)
        return NotImplemented

    def size_bytes(self, value: Any) -> int | None:
        """What an array or frame takes, in bytes; None for everything else."""
        if self._np is not None and isinstance(value, self._np.ndarray):
            return int(value.nbytes) + 112
        return None

    def _reduce_array(self, pickler: ComponentPickler, obj: Any) -> Any:
        if pickler.inside_frame is None:
            owner = self._owner(obj)
            pickler.array_roots.append((obj, owner))
            if owner is not obj and id(owner) in pickler.shared:
                offset = _address(obj) - _address(owner)
                return recipes.view, (
                    owner, offset, obj.dtype, obj.shape, obj.strides, bool(obj.flags.writeable),
                )  # fmt: skip
        if obj.dtype.hasobject or not obj.dtype.itemsize:
            return NotImplemented
        order = "F" if obj.flags.f_contiguous and not obj.flags.c_contiguous else "C"
        flat = obj.reshape(-1, order=order)
        if flat.strides != (obj.dtype.itemsize,):
            flat = flat.copy()  # one element may have any stride, and then no other view is allowed
        flat = flat.view("u1")
        data = pickler.set_aside(flat) if flat.nbytes >= OUT_OF_BAND_BYTES else flat.tobytes()
        return recipes.array, (data, obj.dtype, obj.shape, order, bool(obj.flags.writeable))

    def _owner(self, obj: Any) -> Any:
        owner = obj
        while type(owner.base) is self._np.ndarray:  # type: ignore[union-attr]
            owner = owner.base
        if not (owner.flags.c_contiguous or owner.flags.f_contiguous):
            return obj
        if owner.dtype.hasobject != obj.dtype.hasobject:
            return obj
        return owner

    def _reduce_frame(self, pickler: ComponentPickler, obj: Any) -> Any:
        if obj is pickler.inside_frame or pickler.inside_frame is not None or _holds_objects(obj):
            return NotImplemented
        # Frames that came from each other share blocks behind copy-on-write. Loaded as shared, a write to one
        # would show in the other, so every frame gets blocks of its own.
        return recipes.nested, (pickler.nested(obj),)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _holds_objects(obj: Any) -> bool:
    """Whether a frame has cells that may be mutable objects which something else refers to as well."""
    pandas = sys.modules["pandas"]
    kinds = obj.dtypes if isinstance(obj, pandas.DataFrame) else [obj.dtype]
    if not any(_is_object(kind) for kind in kinds):
        return False
    infer = pandas.api.types.infer_dtype
    columns = (obj.iloc[:, i] for i in range(obj.shape[1])) if isinstance(obj, pandas.DataFrame) else [obj]
    mixed = ("mixed", "mixed-integer", "unknown-array")
    return any(_is_object(column.dtype) and infer(column, skipna=True) in mixed for column in columns)


def _is_object(dtype: Any) -> bool:
    """Whether a column is of Python objects; pandas' own string type is not."""
    return getattr(dtype, "char", "") == "O"
