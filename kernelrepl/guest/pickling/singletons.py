"""What a process has one of, and what only looks at another object: neither may come back as a copy.

Runs in the kernel.
"""

from __future__ import annotations

import collections
import contextlib
import dis
import functools
import gc
import pickle
import sys
import types
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING, Any, ClassVar

from kernelrepl.guest import imports, loaded, recipes
from kernelrepl.guest.depth import is_too_deep
from kernelrepl.guest.neutral import module_of
from kernelrepl.guest.pickling import ones
from kernelrepl.guest.pickling.stream import TooLarge

if TYPE_CHECKING:
    from kernelrepl.guest.pickling.pickler import ComponentPickler

_KNOWN = {
    "sys": (
        *("path", "modules", "argv", "meta_path", "path_hooks", "path_importer_cache"),
        *("version_info", "flags", "float_info", "int_info", "hash_info", "thread_info", "implementation"),
    ),
    "os": ("environ", "environb"),
    "random": ("_inst",),
    "warnings": ("filters",),
    "copyreg": ("dispatch_table",),
    "dataclasses": ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY", "_EMPTY_METADATA"),
    "numpy.random.mtrand": ("_rand",),
    "matplotlib": ("rcParams", "rcParamsDefault", "colormaps", "color_sequences"),
    "encodings.aliases": ("aliases",),
    "networkx": ("config",),
    "plotly.io": ("templates", "renderers"),
    "plotly.express": ("defaults",),
    "pandas._config.config": ("options",),
    "logging": ("root", "lastResort"),
    "sympy.core.parameters": ("global_parameters",),
    "xarray.core.options": ("OPTIONS",),
}
"""With the settings of libraries that are objects: what is set there comes back, or is told, by itself."""

_NO_LIBRARIES = frozenset({"__main__", "kernelrepl", "IPython", "ipykernel", "traitlets", "comm", "zmq"})
"""What is of the kernel: it says itself how it is saved."""
_BINDS = frozenset(dis.opmap[name] for name in ("STORE_NAME", "STORE_GLOBAL"))
_REBINDS = frozenset(dis.opmap[name] for name in ("STORE_GLOBAL", "DELETE_GLOBAL"))
_NO_ONES = (str, int, float, complex, bytes, tuple, frozenset, type, BaseException)
_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType)

Place = tuple[str, str]
Spaces = dict[int, Place]


def known() -> Iterator[tuple[Any, tuple[str, str]]]:
    """Objects that there are one of, and where: module and attribute."""
    for name, attributes in _KNOWN.items():
        module = sys.modules.get(name)
        if module is not None:
            space = getattr(module, "__dict__", {})
            for attribute in attributes:
                if attribute in space:
                    yield space[attribute], (name, attribute)


class Singletons:
    """Which objects are one of a kind, and where to find them: module and attribute.

    The attribute is empty for the namespace of a module. Asked about every object that is saved, and made for every
    pass: the tables of modules are taken over from the pass before while nothing was imported. What they say is checked
    when it is used, because a number may belong to another object by then.
    """

    _latest: ClassVar[loaded.Mark] = loaded.NONE
    _spaces: ClassVar[Spaces] = {}
    _ones: ClassVar[dict[int, list[Place]]] = {}
    """The objects of their own classes that libraries keep in variables of their modules."""
    _looked: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        self._look_around()
        self._modules = self._spaces
        self._known = {id(value): place for value, place in known()}

    @classmethod
    def _look_around(cls) -> None:
        mark = loaded.mark()
        if cls._latest == mark:
            return
        names = loaded.since(cls._latest)
        if names is None:
            names, cls._spaces = list(sys.modules), {}
        cls._latest = mark
        for name in names:
            cls._look_at(name)

    @classmethod
    def _look_at(cls, name: str) -> None:
        module = sys.modules.get(name)
        space = getattr(module, "__dict__", None)
        if module is None or type(space) is not dict or name == "__main__":
            return
        cls._spaces[id(space)] = (name, "")
        if cls._looked.get(name) != id(space):
            cls._looked[name] = id(space)
            for attribute, value in _ones_in(name, module):
                cls._ones.setdefault(id(value), []).append((name, attribute))

    @classmethod
    def arrived(cls, module: types.ModuleType, words: Collection[str]) -> None:
        """A library has been loaded by code with these words: what they name in it is as it comes."""
        named = [vars(module)[word] for word in words if word in vars(module)]
        named = [value for value in named if not issubclass(type(value), _NO_ONES + _CODE)]
        top = module.__name__.partition(".")[0]
        for name in list(sys.modules) if named else ():
            if name.partition(".")[0] == top:
                cls._look_at(name)
        for value in named:
            if id(value) in cls._ones and cls.find_one(value) is not None:
                with contextlib.suppress(Exception):  # nobody knows what is in it, and no cell may fail for that
                    ones.remember(value, _has_place)

    @classmethod
    def named(cls, values: Iterable[Any]) -> None:
        """Code that names these is about to run: look at those of them that nobody has looked at."""
        for value in values:
            if id(value) in cls._ones and cls.find_one(value) is not None:
                with contextlib.suppress(Exception):  # as above
                    ones.known(value, _has_place)
        ones.forget_restored()

    def find(self, obj: Any) -> Any:
        """Module and attribute of an object that must not be saved as a copy; None for every other object."""
        key = id(obj)
        if key in self._known:
            return self._known[key]  # made a moment ago, of what the modules hold
        found = self._modules.get(key)
        if found is not None and getattr(sys.modules.get(found[0]), "__dict__", None) is obj:
            return found
        return self.find_one(obj) if key in self._ones else None

    @classmethod
    def find_one(cls, obj: Any) -> Place | None:
        """Where a library keeps an object that its modules have made when they were loaded."""
        for module, attribute in cls._ones.get(id(obj), ()):
            space = getattr(sys.modules.get(module), "__dict__", {})
            if space.get(attribute) is obj and attribute in _fixed_names(module):
                return module, attribute
        return None

    def among(self, memo: Mapping[int, tuple[int, Any]]) -> bool:
        """Whether a pickler's memo has a dict or a list that is one of them."""
        keys = (self._known.keys() & memo.keys()) | (self._modules.keys() & memo.keys())
        return any(type(memo[key][1]) in (dict, list) and self.find(memo[key][1]) is not None for key in keys)


def _ones_in(name: str, module: types.ModuleType) -> Iterator[tuple[str, Any]]:
    top = name.partition(".")[0]
    if top in _NO_LIBRARIES or imports.is_own(module):
        return
    for attribute, value in list(vars(module).items()):
        kind = type(value)
        if kind.__module__ != "builtins" and not isinstance(value, _NO_ONES) and not attribute.startswith("__"):
            home = kind.__module__
            if isinstance(home, str) and home.partition(".")[0] == top:
                yield attribute, value


@functools.lru_cache(None)
def _fixed_names(module: str) -> frozenset[str]:
    """The names that a module's own code binds when it is loaded, and no function of it: others come and go."""
    with contextlib.suppress(Exception):  # it may come from anywhere
        spec = sys.modules[module].__spec__
        code = spec.loader.get_code(module)  # type: ignore[union-attr]
        return frozenset({*_names_of(code, _BINDS)} - set(_rebound(code)))
    return frozenset()


def _rebound(code: types.CodeType) -> Iterator[str]:
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _names_of(inner, _REBINDS)
            yield from _rebound(inner)


def _names_of(code: types.CodeType, operations: frozenset[int]) -> Iterator[str]:
    """The names that operations of code are given: `dis` takes ten times longer, and modules are long."""
    if not operations.isdisjoint(code.co_code[::2]):
        high = 0
        for operation, low in zip(code.co_code[::2], code.co_code[1::2], strict=True):
            if operation in operations:
                yield code.co_names[high | low]
            high = (high | low) << 8 if operation == dis.EXTENDED_ARG else 0


class _Copy:
    """Stands for a copy of what a module has one of."""

    def __init__(self, original: Any) -> None:
        self.original = original

    @property
    def __class__(self) -> Any:
        """Of the original: pickle compares it with what `copyreg.__newobj__` is to be called with."""
        return type(self.original)

    @__class__.setter
    def __class__(self, kind: Any) -> None: ...

    def __reduce__(self) -> Any:
        return self.original.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


class _Part:
    """Holds a part of it, to try whether that can be pickled."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        return list, (), None, iter([self.value])


def reduce_one(pickler: ComponentPickler, obj: Any, place: Place) -> Any:
    """What a module has one of comes back as that, for a name that is bound to it with what was changed in it."""
    module, attribute = place
    there = recipes.attribute, place
    trying = isinstance(pickler.inside_frame, _Copy | _Part)
    if attribute in _KNOWN.get(module, ()) or id(obj) not in pickler.members or trying:
        return there
    one = ones.known(obj, _has_place)
    if not one.differs():
        return there
    copy, names = None, one.changed.keys()
    if one.is_copied is not False and not (one.sure and ones.is_plain(type(obj))):
        copy = _Copy(obj)
        if _failure(pickler, copy) is not None:
            copy = None
        elif _is_said_to_be_the_one(obj):
            copy, names = None, names & vars(obj).keys()  # slots of such objects hold what is made again
    state = copy, *(_changed_parts(pickler, obj, one, names) if copy is None else ({}, {}, []))
    if not any(state[1:]) and copy is None:
        return there  # it is a part of the process
    pickler.kept += [*state, state]
    one.is_copied = True if copy is not None else one.is_copied
    pickler.inert = False
    if pickler.context.proven.doubts(type(obj)):
        pickler.doubtful[type(obj)] = obj
        pickler.telling.add(type(obj))
    return recipes.attribute, place, state, None, None, recipes.one_state


def _has_place(obj: Any) -> bool:
    if ones.is_seen_through(type(obj)):
        return Singletons.find_one(obj) is not None
    return Singletons.find_one(obj) is not None or any(value is obj for value, _ in known())


def _failure(pickler: ComponentPickler, obj: Any) -> Exception | None:
    """Why something cannot be pickled; None if it can."""
    kept, before = len(pickler.buffers), pickler.references
    pickler.references = {}
    try:
        pickler.nested(obj)
        if isinstance(obj, _Copy) and any(map(_is_class_of_library, pickler.references.values())):
            pickler.references = {}
            return pickle.PicklingError("its library has made a class for it, which would come back as another one")
    except Exception as error:
        if isinstance(error, TooLarge) or is_too_deep(error):
            raise
        return error
    finally:
        del pickler.buffers[kept:]
        pickler.references = before | pickler.references
    return None


def _is_class_of_library(value: Any) -> bool:
    return issubclass(type(value), type) and module_of(value) != "__main__"


def _is_said_to_be_the_one(obj: Any) -> bool:
    """Whether it is pickled as what a function without arguments returns: nothing of what is in it."""
    reduced = obj.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    return isinstance(reduced, tuple) and not any(reduced[1:]) and bool(getattr(obj, "__dict__", None))


def _changed_parts(pickler: ComponentPickler, obj: Any, one: ones.One, names: Set[str]) -> Any:
    """What says something else than before, what is another object, and what is gone. What cannot be saved is told."""
    now = ones.parts_of(obj)
    filled: dict[str, Any] = {}
    replaced: dict[str, Any] = {}
    for name in sorted(names & now.keys()):
        error = _failure(pickler, _Part(now[name]))
        if error is None:
            (replaced if one.changed[name] else filled)[name] = now[name]
        elif not one.is_made_when_needed(name, now[name]):
            pickler.lost[name] = now[name], error
    return filled, replaced, sorted(names - now.keys())


def reduce_module(pickler: ComponentPickler, obj: types.ModuleType) -> Any:
    if obj is pickler.context.main_module:
        return recipes.main_module, ()
    name = obj.__name__
    top = sys.modules.get(name.partition(".")[0])
    if sys.modules.get(name) is not obj or not (getattr(obj, "__spec__", None) or getattr(top, "__spec__", None)):
        raise pickle.PicklingError("a module made by hand cannot be saved; put its code into a file and import that")
    # `import a.b` binds `a`, and importing `a` alone need not bring `b`.
    below = sorted(each for each in pickler.context.imported if each.startswith(name + ".") and each in sys.modules)
    return recipes.module, (name, tuple(below))


def _reduce_view(kind: str) -> Any:
    return lambda pickler, obj: (recipes.dict_view, (gc.get_referents(obj)[0], kind))


def _reduce_iterator(kind: str, order: str = "iter") -> Any:
    def reduce(pickler: ComponentPickler, obj: Any) -> Any:
        try:
            left = len(obj.__reduce__()[1][0])  # looks ahead with a copy
        except RuntimeError:
            raise pickle.PicklingError(
                "an iterator over a dict that has grown or shrunk since cannot be saved"
            ) from None
        if not left:
            return iter, ((),)
        mapping: Any = gc.get_referents(obj)[0]
        return recipes.dict_iterator, (mapping, kind, order, len(mapping) - left)

    return reduce


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


def refuse(reason: str) -> Any:
    def reduce(pickler: ComponentPickler, obj: Any) -> Any:
        raise pickle.PicklingError(reason)

    return reduce


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
    weakref.ReferenceType: refuse("a weak reference cannot be saved; keep the object, and refer to it again"),
    weakref.ProxyType: refuse("a weak proxy cannot be saved; keep the object, and make the proxy again"),
    weakref.CallableProxyType: refuse("a weak proxy cannot be saved; keep the object, and make the proxy again"),
    weakref.finalize: refuse("a finalizer cannot be saved; what it cleans up belongs to this kernel"),
    type(iter(_ORDERED)): refuse("an iterator over an OrderedDict cannot be saved; make it again where it is needed"),
    type(iter({})): _reduce_iterator("keys"),
    type(iter({}.values())): _reduce_iterator("values"),
    type(iter({}.items())): _reduce_iterator("items"),
    type(reversed({})): _reduce_iterator("keys", "reversed"),
    type(reversed({}.values())): _reduce_iterator("values", "reversed"),
    type(reversed({}.items())): _reduce_iterator("items", "reversed"),
    memoryview: refuse("a memoryview cannot be saved; keep the object it looks at instead"),
}
