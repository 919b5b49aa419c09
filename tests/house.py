"""Count how the house stands: `python -m tests.house`. `tests/unit/test_house.py` holds what must not get worse."""

from __future__ import annotations

import ast
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.unit.test_layers import FLOORS, MODULES, imports_of, tree

TESTS = Path(__file__).parent
GUEST = "guest"


@dataclass(frozen=True)
class Rooms:
    """What imports what, between rooms: packages, or modules beside them."""

    arrows: set[tuple[str, str]]

    def circles(self) -> set[str]:
        """The rooms that come back to themselves."""
        return {room for room in self._rooms() if room in self._below(room)}

    def floors(self) -> int:
        """How many floors the rooms need; without sense while there is a circle."""
        memo: dict[str, int] = {}

        def height(room: str) -> int:
            if room not in memo:
                memo[room] = 1 + max((height(target) for source, target in self.arrows if source == room), default=0)
            return memo[room]

        return 0 if self.circles() else max(map(height, self._rooms()), default=0)

    def _rooms(self) -> set[str]:
        return {room for arrow in self.arrows for room in arrow}

    def _below(self, room: str) -> set[str]:
        seen: set[str] = set()
        to_see = [room]
        while to_see:
            here = to_see.pop()
            found = {target for source, target in self.arrows if source == here} - seen
            seen |= found
            to_see += found
        return seen


def room(module: str) -> str:
    """The package of a module, of the guest's the one inside."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == GUEST and len(parts) > 2 else parts[0]


def edges() -> Iterator[tuple[str, str]]:
    """Each module with each that it imports."""
    for module in MODULES:
        for entry in imports_of(module):
            if entry.ours and entry.target in MODULES:
                yield module, entry.target


def host() -> Rooms:
    """The rooms of the host; of the guest it knows the framing."""
    found = {(room(source), room(target)) for source, target in edges() if not source.startswith(GUEST)}
    return Rooms({(source, target) for source, target in found if source != target and target in FLOORS})


def guest() -> Rooms:
    """The rooms of the guest; what lies beside them is one room each."""

    def of(module: str) -> str:
        return room(module) if module.count(".") > 1 else module

    found = {(of(source), of(target)) for source, target in edges() if source.startswith(GUEST)}
    return Rooms({(source, target) for source, target in found if source != target})


def with_one_importer() -> list[str]:
    """The modules that exactly one other imports."""
    importers: dict[str, set[str]] = defaultdict(set)
    for source, target in edges():
        importers[target].add(source)
    return sorted(target for target, sources in importers.items() if len(sources) == 1)


def functions() -> Iterator[tuple[int, str]]:
    """Every function's length in lines, and where it is."""
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield (node.end_lineno or node.lineno) - node.lineno + 1, f"{module}.{node.name}"


def pokes() -> Counter[str]:
    """How often each file of the tests touches what is private of an object that is not its own.

    IPython's `_repr_html_` and the like are public, and so is `os._exit`, whatever their names begin with.
    """
    found: Counter[str] = Counter()
    for path in sorted(TESTS.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and re.fullmatch(r"_[^_](.*[^_])?", node.attr):
                is_own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
                found[path.relative_to(TESTS).as_posix()] += not is_own
    return found


def main() -> None:
    files: Counter[str] = Counter(room(module) for module in MODULES)
    lengths = {module: len(MODULES[module].read_text().splitlines()) for module in MODULES}
    longest = max(lengths, key=lambda module: lengths[module])
    print("files a folder:", ", ".join(f"{name or 'kernelrepl'} {count}" for name, count in files.most_common()))
    print("modules:", len(MODULES), "- with exactly one importer:", len(with_one_importer()))
    for title, rooms in (("host", host()), ("guest", guest())):
        circles = rooms.circles()
        print(
            f"{title}: {len({name for arrow in rooms.arrows for name in arrow})} rooms,"
            f" {rooms.floors() or 'no'} floors, {len(rooms.arrows)} arrows,"
            f" {len(circles)} rooms in circles{': ' + ', '.join(sorted(circles)) if circles else ''}"
        )
    print("lines a file: median", statistics.median(lengths.values()), "longest", lengths[longest], longest)
    lines, name = max(functions())
    print("longest function:", lines, name, "- over 50 lines:", sum(each > 50 for each, _ in functions()))
    print("tests that touch what is private:", sum(pokes().values()), "times, most in", pokes().most_common(3))


if __name__ == "__main__":
    main()
