"""What a process has one of, and what only looks at another object: neither may come back as a copy.

Runs in the kernel.
"""

from __future__ import annotations

import collections
import gc
import pickle
import sys
import types
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from kernelrepl.guest import recipes

if TYPE_CHECKING:
    from kernelrepl.guest.pickler import ComponentPickler

_KNOWN = {
    "sys": ("path", "modules", "argv", "meta_path", "path_hooks", "path_importer_cache"),
    "os": ("environ", "environb"),
    "random": ("_inst",),
    "warnings": ("filters",),
    "copyreg": ("dispatch_table",),
    "dataclasses": ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_EMPTY_METADATA"),
    "numpy.random.mtrand": ("_rand",),
    "matplotlib": ("rcParams", "rcParamsDefault"),
}

Spaces = dict[int, tuple[str, str]]


class Landmarks:
    """Which objects are one of a kind, and where to find them: module and attribute.

    The attribute is empty for the namespace of a module. Asked about every object that is saved, and made for every
    pass: the table of modules is taken over from the pass before while nothing was imported. What it says is checked
    when it is used, because a number may belong to another object by then.
    """

    _latest: ClassVar[tuple[Any, Spaces]] = (None, {})

    def __init__(self) -> None:
        self._modules = self._spaces()
        self._known = dict(self._attributes())

    @classmethod
    def _spaces(cls) -> Spaces:
        stamp = (len(sys.modules), next(reversed(sys.modules), None))
        if cls._latest[0] != stamp:
            found: Spaces = {}
            for name, module in list(sys.modules.items()):
                space = getattr(module, "__dict__", None)
                if type(space) is dict and name != "__main__":
                    found[id(space)] = (name, "")
            cls._latest = (stamp, found)
        return cls._latest[1]

    @staticmethod
    def _attributes() -> Iterator[tuple[int, tuple[str, str]]]:
        for name, attributes in _KNOWN.items():
            space = getattr(sys.modules.get(name), "__dict__", {})
            for attribute in attributes:
                if attribute in space:
                    yield id(space[attribute]), (name, attribute)

    def find(self, obj: Any) -> Any:
        """Module and attribute of an object that must not be saved as a copy; None for every other object."""
        key = id(obj)
        if key in self._known:
            return self._known[key]  # made a moment ago, of what the modules hold
        found = self._modules.get(key)
        if found is not None and getattr(sys.modules.get(found[0]), "__dict__", None) is obj:
            return found
        return None

    def among(self, memo: Mapping[int, tuple[int, Any]]) -> bool:
        """Whether a pickler's memo has a dict or a list that is one of them."""
        keys = (self._known.keys() & memo.keys()) | (self._modules.keys() & memo.keys())
        return any(type(memo[key][1]) in (dict, list) and self.find(memo[key][1]) is not None for key in keys)


def reduce_module(pickler: ComponentPickler, obj: types.ModuleType) -> Any:
    if obj is pickler.around.main_module:
        return recipes.main_module, ()
    name = obj.__name__
    top = sys.modules.get(name.partition(".")[0])
    if sys.modules.get(name) is not obj or not (getattr(obj, "__spec__", None) or getattr(top, "__spec__", None)):
        raise pickle.PicklingError("a module made by hand cannot be saved; put its code into a file and import that")
    # `import a.b` binds `a`, and importing `a` alone need not bring `b`.
    below = sorted(each for each in pickler.around.imported if each.startswith(name + ".") and each in sys.modules)
    return recipes.module, (name, tuple(below))


def _reduce_view(kind: str) -> Any:
    return lambda pickler, obj: (recipes.dict_view, (gc.get_referents(obj)[0], kind))


def _reduce_proxy(pickler: ComponentPickler, obj: Any) -> Any:
    target = gc.get_referents(obj)[0]
    own = target.get("__dict__") or target.get("__weakref__") if type(target) is dict else None
    cls = getattr(own, "__objclass__", None)
    if cls is not None and gc.get_referents(vars(cls))[0] is target:
        return recipes.class_namespace, (cls,)
    return recipes.proxy, (target,)


def _reduce_super(pickler: ComponentPickler, obj: Any) -> Any:
    # Asked for its `__reduce_ex__`, it answers with that of the object it stands for.
    get = super.__dict__
    return super, (get["__thisclass__"].__get__(obj), get["__self__"].__get__(obj))


def _reduce_weak_container(pickler: ComponentPickler, obj: Any) -> Any:
    items = list(obj) if type(obj) is weakref.WeakSet else list(obj.items())
    return type(obj), (), items, None, None, recipes.weak_container_state


def _refuse(reason: str) -> Any:
    def refuse(pickler: ComponentPickler, obj: Any) -> Any:
        raise pickle.PicklingError(reason)

    return refuse


_ORDERED: Any = collections.OrderedDict()

REDUCERS: dict[type, Any] = {
    types.ModuleType: reduce_module,
    type({}.keys()): _reduce_view("keys"),
    type({}.values()): _reduce_view("values"),
    type({}.items()): _reduce_view("items"),
    type(_ORDERED.keys()): _reduce_view("keys"),
    type(_ORDERED.values()): _reduce_view("values"),
    type(_ORDERED.items()): _reduce_view("items"),
    types.MappingProxyType: _reduce_proxy,
    super: _reduce_super,
    weakref.WeakSet: _reduce_weak_container,
    weakref.WeakKeyDictionary: _reduce_weak_container,
    weakref.WeakValueDictionary: _reduce_weak_container,
    weakref.ReferenceType: _refuse("a weak reference cannot be saved; keep the object, and refer to it again"),
    weakref.ProxyType: _refuse("a weak proxy cannot be saved; keep the object, and make the proxy again"),
    weakref.CallableProxyType: _refuse("a weak proxy cannot be saved; keep the object, and make the proxy again"),
    weakref.finalize: _refuse("a finalizer cannot be saved; what it cleans up belongs to this kernel"),
    **dict.fromkeys(
        map(type, (iter({}), iter({}.values()), iter({}.items()), iter(set()), iter(_ORDERED))),
        _refuse("an iterator over a dict or a set cannot be saved; make it again where it is needed"),
    ),
    **dict.fromkeys(
        map(type, (reversed({}), reversed({}.values()), reversed({}.items()))),
        _refuse("an iterator over a dict cannot be saved; make it again where it is needed"),
    ),
    memoryview: _refuse("a memoryview cannot be saved; keep the object it looks at instead"),
}
