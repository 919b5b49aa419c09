"""Bring the session back: what is small at the start, what is large when a cell could touch it, or while nothing runs.

Only data waits (see `inert`): no code can tell when it was loaded, and nothing leads to it but its names. Runs in the
kernel, main thread only.
"""

from __future__ import annotations

import asyncio
import builtins
import dis
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kernelrepl.guest import frames, wire
from kernelrepl.guest.checkpoint.environment import ENVIRONMENT, Environment
from kernelrepl.guest.checkpoint.snapshot import Snapshot
from kernelrepl.guest.checkpoint.state import PLACED, Name
from kernelrepl.guest.mailbox import Mailbox
from kernelrepl.guest.restore.incoming import Flowing, Held, Incoming, Source
from kernelrepl.guest.restore.loader import Loader, Stored

QUIET_S = 1.0
"""How long nothing has run before what waits is loaded without being needed."""
_BATCH_BYTES = 64 << 20
"""How much is asked for at once while nothing runs; a single component may be larger."""


class Restoring:
    """What has been restored of one session, and what is still to come."""

    def __init__(
        self,
        mailbox: Mailbox,
        shell: Any,
        main_module: types.ModuleType,
        snapshot: Snapshot,
        environment: Environment,
    ) -> None:
        self._mailbox = mailbox
        self._shell = shell
        self._main_module = main_module
        self._snapshot = snapshot
        self._environment = environment
        self._stories: dict[str, str] = {}
        self._names: dict[str, Name] = {}
        """Names whose values wait."""
        self._waiting: dict[int, dict[str, Any]] = {}
        """What the keeper has said of each component that waits, by key; the smallest come first."""
        self._asked: list[int] = []
        self._holder: dict[int, int] = {}
        self._timer: asyncio.Handle | None = None
        self._incoming: Incoming

    # What a lost name says

    def story(self, name: str | None) -> str | None:
        """What to tell about a name that the session had and this kernel has not."""
        return self._stories[name] if name is not None and self._is_lost(name) else None

    def _is_lost(self, name: str) -> bool:
        """Whether nobody has bound a lost name again; what IPython has put under it (`open`) does not count."""
        space, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        return name in self._stories and (name not in space or (name in hidden and hidden[name] is space[name]))

    def lost_builtin(self, code: types.CodeType) -> str | None:
        """The story of a lost name that code would silently take for something else of the same name."""
        if not self._stories:
            return None
        for name in _reads(code):
            if self._is_lost(name) and (hasattr(builtins, name) or name in self._shell.user_ns):
                return self._stories[name]
        return None

    def forget_found(self) -> None:
        """A commit has been stored: names that were bound again are lost no more."""
        if self._stories:
            self._stories = {name: story for name, story in self._stories.items() if self._is_lost(name)}

    # At the start

    def restore(self, start: dict[str, Any]) -> dict[str, Any]:
        """Load what the keeper has sent with the `start` frame. Returns the report for the `ready` frame."""
        with self._shell.builtin_trap:  # libraries that are imported find what they find in a cell
            return self._restore(start)

    def _restore(self, start: dict[str, Any]) -> dict[str, Any]:
        snap, shell, environment = self._snapshot, self._shell, self._environment
        shell.execution_count = start["execution_count"] + 1
        self._incoming = Incoming(wire.map_window(start["file"]), self._mailbox)
        parts = {entry["roots"][0]: self._stored(entry, Held) for entry in start["components"]}
        self._waiting = {entry["roots"][0]: entry for entry in start["later"]}
        self._holder = {root: key for key, entry in self._waiting.items() for root in entry["roots"]}
        bound: dict[int, list[str]] = {}
        for name, (root, *_) in start["names"].items():
            if not name.startswith("*"):
                bound.setdefault(root, []).append(name)
        loader = Loader(shell.user_ns, self._main_module, shell, bound)
        root, *_ = start["names"].get(ENVIRONMENT, (None,))
        failed: list[tuple[str, str]] = []
        if root in parts:
            # First of all: modules are found through the session's own import path.
            loader.load({root: parts[root]}, self._note_loading)
            if root in loader.objects:
                failed = environment.apply({ENVIRONMENT: loader.objects[root]})
        loader.load({key: part for key, part in parts.items() if key != root}, self._note_loading)
        if parts:
            self._mailbox.channel.send(frames.build("loaded", not_restored=[]))
        snap.note_imports(loader.imported)
        # Also those of what is lost.
        used = [root for part in parts.values() for root in (*part.roots, *part.references)]
        used += [root for root, *_ in start["names"].values()]
        snap.reserve((*used, *self._holder))
        names, not_restored, own = self._bind(start["names"], loader)
        self._stories = dict(start["stories"]) | {entry["name"]: _lost(entry) for entry in not_restored}
        snap.await_names((*self._stories, *self._names))
        snap.freeze(sum(sum(entry["segments"]) for entry in self._waiting.values()))
        self._freeze(parts, loader)
        own.pop(ENVIRONMENT, None)
        failed += environment.apply(own)
        for what, why in failed + environment.options.place(snap.placed):
            not_restored.append({"name": what, "type": "", "reason": why[: wire.MAX_SAID_CHARS]})
        # What was never stored is as gone as what failed, and whoever comes back may not have been there.
        not_restored += [
            {"name": name, "type": "", "reason": story[: wire.MAX_SAID_CHARS]}
            for name, story in start["stories"].items()
            if name != "_" and not name.startswith("*")
        ]
        for root, value in loader.objects.items():
            snap.adopt(root, value)
        loaded = self._learn(parts.values(), loader)
        snap.rebase(names, [part.roots for part in loaded], environment.own_values())
        snap.tell_lost_attributes()
        restored = sorted(name for name in (*names, *self._names) if not name.startswith("*") and name != "_")
        return {"restored": restored, "not_restored": not_restored}

    def _stored(self, entry: dict[str, Any], source: Callable[[Incoming, list[int]], Source]) -> Stored:
        """What the keeper has said of a component; its bytes come in the order of the entries."""
        lengths = entry["segments"] if entry["skip"] is None else []
        return Stored(
            key=entry["roots"][0],
            roots=tuple(entry["roots"]),
            references=tuple(entry["references"]),
            source=source(self._incoming, lengths),
            size_bytes=sum(entry["segments"]),
            has_code=entry["code"],
            magic=entry["magic"],
            python=entry["python"],
            packages=entry["packages"],
            skip=entry["skip"],
        )

    def _note_loading(self, part: Stored) -> None:
        self._mailbox.channel.send(frames.build("loading", component=part.key))

    def _learn(self, parts: Iterable[Stored], loader: Loader) -> list[Stored]:
        """The chunks of what was loaded are in the store. Returns what was loaded."""
        snap = self._snapshot
        loaded = [part for part in parts if part.key not in loader.failures]
        for part in loaded:
            snap.note_stored(part.key, part.source.sums(), part.size_bytes)
        return loaded

    def _bind(
        self, names: dict[str, Any], loader: Loader
    ) -> tuple[dict[str, Name], list[dict[str, str]], dict[str, Any]]:
        """Bind names to what was loaded. Returns those, those that are lost, and the session's own values."""
        bound: dict[str, Name] = {}
        lost: list[dict[str, str]] = []
        own: dict[str, Any] = {}
        shell = self._shell
        for name, (root, kind, size) in names.items():
            if root in self._holder:
                self._names[name] = Name(root, kind, size)
                shell.user_ns.pop(name, None)  # IPython gives `_` a value
                continue
            if root not in loader.objects:
                key = loader.holder.get(root, 0)
                reason = loader.failures.get(key, "its bytes are missing from the store")
                reason = reason[: wire.MAX_SAID_CHARS]
                if name.startswith(PLACED):
                    lost.append({"name": name.removeprefix(PLACED), "type": kind, "reason": reason})
                elif reason == wire.DAMAGED and name.startswith("*"):
                    lost.append({"name": f"the session's own {name[1:]}", "type": "", "reason": reason})
                elif reason == wire.DAMAGED or not (name.startswith("*") or name == "_"):
                    lost.append({"name": name, "type": kind, "reason": reason})
                continue
            value = loader.objects[root]
            bound[name] = Name(root, kind, size)
            if name.startswith(PLACED):
                self._snapshot.place(name, value)
                continue
            if name.startswith("*"):
                own[name] = value
                self._snapshot.adopt_own(name, root)
                continue
            shell.user_ns[name] = value
            if name == "_":
                shell.displayhook._ = value
        return bound, lost, own

    def _freeze(self, parts: dict[int, Stored], loader: Loader) -> None:
        """Components that could not be loaded stay in the store; what they refer to must stay as well."""
        snap = self._snapshot
        for key in loader.failures:
            snap.freeze(parts[key].size_bytes)
            for root in parts[key].references:
                if root in loader.objects:
                    snap.pin(root, loader.objects[root])

    # Later

    def need(self, words: frozenset[str]) -> None:
        """Code that names these words is about to run: load what it could touch."""
        if not self._waiting:
            return
        reached = self._snapshot.words_within(words)
        if reached is None:
            self.need_all()
        else:
            # Data names nothing: through what is loaded now nothing else is reached.
            self.load({self._holder[self._names[word].root] for word in reached & self._names.keys()})

    def need_all(self) -> None:
        """Something is about to run of which nothing is known."""
        self.load(set(self._waiting))

    def load(self, keys: Iterable[int]) -> None:
        """Load components that wait, and wait for them."""
        wanted = set(keys) & self._waiting.keys()
        self._ask(key for key in self._waiting if key in wanted and key not in self._asked)
        while wanted & self._waiting.keys():
            self.take(self._mailbox.receive("data"))

    def _ask(self, keys: Iterable[int]) -> None:
        asked = list(keys)
        if asked:
            self._asked += asked
            self._mailbox.channel.send(frames.build("want", components=asked))

    def take(self, header: dict[str, Any]) -> None:
        """Load what the keeper has sent."""
        with self._shell.builtin_trap:
            self._take(header)

    def _take(self, header: dict[str, Any]) -> None:
        for entry in header["components"]:
            part = self._stored(entry, Flowing)
            key = part.key
            loader = Loader(self._shell.user_ns, self._main_module, self._shell)
            loader.load({key: part}, self._note_loading)
            part.source.finish()
            names = {name: known for name, known in self._names.items() if known.root in part.roots}
            if "_" in self._shell.user_ns:
                names.pop("_", None)  # it is the result of another cell by now
            self._forget(key)
            lost: list[dict[str, str]] = []
            if loader.failures:
                lost = self._lose(part, names, loader.failures[key])
            elif names:
                self._admit(part, names, loader)
            self._mailbox.channel.send(frames.build("loaded", not_restored=lost))

    def _forget(self, key: int) -> None:
        """A component waits no longer."""
        entry = self._waiting.pop(key)
        self._asked.remove(key)
        self._snapshot.freeze(-sum(entry["segments"]))
        for root in entry["roots"]:
            del self._holder[root]
        self._names = {name: known for name, known in self._names.items() if known.root in self._holder}

    def _lose(self, part: Stored, names: dict[str, Name], reason: str) -> list[dict[str, str]]:
        self._snapshot.freeze(part.size_bytes)
        lost = [
            {"name": name, "type": known.type, "reason": reason[: wire.MAX_SAID_CHARS]}
            for name, known in names.items()
            if name != "_" or reason == wire.DAMAGED
        ]
        self._stories |= {entry["name"]: _lost(entry) for entry in lost}
        return lost

    def _admit(self, part: Stored, names: dict[str, Name], loader: Loader) -> None:
        snap, shell = self._snapshot, self._shell
        for root in part.roots:
            snap.adopt(root, loader.objects[root])
        bound = {name: loader.objects[known.root] for name, known in names.items()}
        shell.user_ns.update(bound)
        if "_" in bound:
            shell.displayhook._ = bound["_"]
        self._learn([part], loader)
        snap.admit(part.roots, names)

    # While nothing runs

    def rest(self) -> None:
        """Nothing runs: load what waits when that has been so for a while."""
        self.stir()
        if self._waiting and not self._asked:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self._ask_ahead)

    def stir(self) -> None:
        """Something runs."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ask_ahead(self) -> None:
        self._timer = None
        keys: list[int] = []
        size = 0
        for key, entry in self._waiting.items():
            size += sum(entry["segments"])
            if keys and size > _BATCH_BYTES:
                break
            keys.append(key)
        self._ask(keys)


def _lost(entry: dict[str, str]) -> str:
    kind = f" (a {entry['type']})" if entry["type"] else ""
    return f"name {entry['name']!r}{kind} is stored but could not be restored: {entry['reason']}"


def _reads(code: types.CodeType) -> Iterator[str]:
    """The global names that code reads: not those that it assigns, and not the names of attributes."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_NAME", "LOAD_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"):
            yield step.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _reads(constant)
