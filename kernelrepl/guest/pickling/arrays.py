"""How arrays and frames are pickled: memory that is shared stays shared, memory that only looks shared does not.

numpy and pandas are used only when the session has imported them. Runs in the kernel.
"""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any

from kernelrepl.guest import recipes
from kernelrepl.guest.neutral import is_a

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

OUT_OF_BAND_BYTES = 64 << 10
"""Arrays from this size on leave the stream: they are hashed and stored without a copy."""
_OF_EXTENSIONS = ("_memoryviewslice", "memoryview_cwrapper")
"""How compiled extensions look at memory of their own: no code of a session gets hold of it but through the array."""
_HOOKS = ("__reduce__", "__reduce_ex__", "__setstate__")
"""A class that has its own of these knows better how it is saved."""


class ArraySupport:
    """The types of numpy and pandas as far as they are loaded; made anew for each pass."""

    def __init__(self) -> None:
        self._np = sys.modules.get("numpy")
        if self._np is not None and not hasattr(self._np, "ndarray"):
            self._np = None  # an import that is still going on, or failed half way
        self._array: Any = self._np.ndarray if self._np is not None else ()
        self._frames: tuple[type, ...] = ()
        self.never_aliased: tuple[type, ...] = ()
        self._buffers: tuple[type, ...] = ()
        self._limits: tuple[type, ...] = ()
        arrow = sys.modules.get("pyarrow")
        if arrow is not None and hasattr(arrow, "Buffer"):
            self._buffers = (arrow.Buffer,)
        if self._np is not None:
            self.never_aliased = (self._np.generic, self._np.dtype)
            self._limits = (self._np.finfo, self._np.iinfo)
        pandas = sys.modules.get("pandas")
        if pandas is not None and hasattr(pandas, "DataFrame"):
            api = pandas.api.extensions
            self._frames = (pandas.DataFrame, pandas.Series, pandas.Index, api.ExtensionArray)
            self.never_aliased += (
                pandas.Index, pandas.Timestamp, pandas.Timedelta, pandas.Period, pandas.Interval,
                api.ExtensionDtype, pandas.tseries.offsets.BaseOffset, type(pandas.NaT), type(pandas.NA),
            )  # fmt: skip

    def reducer(self, kind: type) -> Any:
        """What reduces the arrays or frames of a kind; None for everything else."""
        if self._np is not None and issubclass(kind, self._array):
            return self._reduce_array if kind is self._array else self._reduce_kind_of_array
        if issubclass(kind, self._buffers):
            return _reduce_buffer
        if kind in self._limits:
            return _reduce_limits
        return self._reduce_frame if issubclass(kind, self._frames) else None

    def size_bytes(self, value: Any) -> int | None:
        """What an array or frame takes, in bytes; None for everything else."""
        if self._np is not None and is_a(value, self._np.ndarray):
            return int(value.nbytes) + 112
        return None

    def _reduce_kind_of_array(self, pickler: ComponentPickler, obj: Any) -> Any:
        kind = type(obj)
        assert self._np is not None
        if issubclass(kind, self._np.memmap):
            raise pickle.PicklingError("an array on a mapped file cannot be saved; keep its path and map it again")
        masked = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
        if kind is not masked and any(getattr(kind, hook) is not getattr(self._array, hook) for hook in _HOOKS):
            return NotImplemented
        data = obj.view(self._array)
        pickler.kept.append(data)
        if self._owner(obj)[0] is obj:
            pickler.array_roots.append((obj, obj))
            pickler.owned.add(id(data))
        state = getattr(obj, "__dict__", None)
        if not state:
            return recipes.array_of_kind, (data, kind)
        return recipes.array_of_kind, (data, kind), dict(state), None, None, recipes.object_state

    def _reduce_array(self, pickler: ComponentPickler, obj: Any) -> Any:
        writeable = bool(obj.flags.writeable)
        if pickler.inside_frame is None and id(obj) not in pickler.owned:
            owner, source = self._owner(obj)
            if source is not None:
                offset = _address(obj) - _address(self._np.frombuffer(source, "u1"))  # type: ignore[union-attr]
                return recipes.memory, (source, offset, obj.dtype, obj.shape, obj.strides, writeable)
            pickler.array_roots.append((obj, owner))
            if owner is not obj and (id(owner) in pickler.shared or _overlaps_itself(obj)):
                if obj.dtype.kind == "T" and obj.ndim != 1:
                    raise pickle.PicklingError("a view of texts of any length cannot be saved; make a copy of it")
                offset = _address(obj) - _address(owner)
                return recipes.view, (owner, offset, obj.dtype, obj.shape, obj.strides, writeable)
        order = "F" if obj.flags.f_contiguous and not obj.flags.c_contiguous else "C"
        if obj.dtype.kind == "O":
            parts = pickler.context.texts.parts(obj, order)
            if parts is not None:
                aside = [pickler.set_aside(part) if len(part) >= OUT_OF_BAND_BYTES else part for part in parts]
                return recipes.texts, (aside, obj.dtype, obj.shape, order, writeable)
            state = (obj.ravel(order=order).tolist(), writeable)
            return recipes.empty_array, (obj.dtype, obj.shape, order), state, None, None, recipes.array_items
        if obj.dtype.hasobject or not obj.dtype.itemsize:
            return NotImplemented
        axes = None if obj.flags.forc else _memory_order(obj)
        flat = (obj if axes is None else obj.transpose(axes)).reshape(-1, order=order)
        if flat.strides != (obj.dtype.itemsize,):
            flat = flat.copy()  # one element may have any stride, and then no other view is allowed
        flat = flat.view("u1")
        data = pickler.set_aside(flat) if flat.nbytes >= OUT_OF_BAND_BYTES else flat.tobytes()
        if axes is not None:
            return recipes.permuted_array, (data, obj.dtype, obj.shape, axes, writeable)
        return recipes.array, (data, obj.dtype, obj.shape, order, writeable)

    def _owner(self, obj: Any) -> tuple[Any, Any]:
        """The array whose memory an array uses, and the object that it belongs to if that is no array."""
        owner, base = obj, obj.base
        while base is not None:
            if type(base).__name__ == "DummyArray":  # what numpy's stride tricks put between an array and its base
                base = base.base
            if not isinstance(base, self._array):
                break
            owner, base = base, base.base
        source = base.obj if type(base) is memoryview else base
        if source is not None and not isinstance(source, self._array) and _is_writeable_memory(source):
            return owner, source
        return (obj if _memory_order(owner) is None else owner), None

    def _reduce_frame(self, pickler: ComponentPickler, obj: Any) -> Any:
        if pickler.inside_frame is not None:
            return NotImplemented
        # Frames that came from each other share blocks behind copy-on-write. Loaded as shared, a write to one
        # would show in the other, so every frame gets blocks of its own. What it holds of objects that others
        # may hold as well, travels beside it.
        pandas = sys.modules["pandas"]
        if not is_a(obj, (pandas.DataFrame, pandas.Series)):
            return NotImplemented if _is_object(obj.dtype) and _is_mixed(obj) else pickler.reduce_nested(obj)
        cells = _cells(obj)
        attributes = obj._attrs
        if not cells and not attributes:
            return pickler.reduce_nested(obj)
        frame = obj.copy(deep=False)
        frame._attrs = {}
        for position in cells:
            if obj.ndim == 1:
                frame.iloc[:] = None
            else:
                nothing = pandas.Series([None] * len(obj), index=obj.index, dtype=object)
                frame.isetitem(position, nothing)
        state = (cells, attributes)
        return (*pickler.reduce_nested(frame), state, None, None, recipes.frame_state)


def _reduce_limits(pickler: ComponentPickler, obj: Any) -> Any:
    return type(obj), (obj.dtype,)


def _reduce_buffer(pickler: ComponentPickler, obj: Any) -> Any:
    """Memory of pyarrow: what strings of pandas are in."""
    if obj.size < OUT_OF_BAND_BYTES or not obj.is_cpu:
        return NotImplemented
    return recipes.arrow_buffer, (pickler.set_aside(obj),)


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


def _overlaps_itself(array: Any) -> bool:
    """Whether elements of an array must share memory, as in a broadcast or in windows over an array."""
    if not array.size:
        return False
    steps = zip(array.shape, array.strides, strict=True)
    return bool(sum((size - 1) * abs(stride) for size, stride in steps) + array.itemsize < array.nbytes)


def _memory_order(array: Any) -> tuple[int, ...] | None:
    """The axes of an array in the order of its memory; None if its elements do not lie side by side."""
    axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    return tuple(axes) if array.transpose(axes).flags.c_contiguous else None


def _is_writeable_memory(source: Any) -> bool:
    if type(source).__name__ in _OF_EXTENSIONS:
        return False
    try:
        with memoryview(source) as view:
            return not view.readonly and view.contiguous
    except (TypeError, BufferError, ValueError):
        return False


def _cells(obj: Any) -> dict[int, list[Any]]:
    """Columns whose cells may be mutable objects which something else refers to as well, by position."""
    columns = [obj] if obj.ndim == 1 else [obj.iloc[:, i] for i, kind in enumerate(obj.dtypes) if _is_object(kind)]
    positions = [0] if obj.ndim == 1 else [i for i, kind in enumerate(obj.dtypes) if _is_object(kind)]
    return {
        position: column.to_numpy().tolist()
        for position, column in zip(positions, columns, strict=True)
        if _is_object(column.dtype) and _is_mixed(column)
    }


def _is_mixed(values: Any) -> bool:
    kind = sys.modules["pandas"].api.types.infer_dtype(values, skipna=True)
    return kind in ("mixed", "mixed-integer", "unknown-array")


def _is_object(dtype: Any) -> bool:
    """Whether a column is of Python objects; pandas' own string type is not."""
    return getattr(dtype, "char", "") == "O"
