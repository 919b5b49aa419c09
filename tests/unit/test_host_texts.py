"""What `install` does to the text of a configuration: one entry comes or goes, and all the rest stays to the letter."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelrepl.cli import host_files, jsonc, toml_tables
from kernelrepl.cli.jsonc import NotReadable

PATH = ("mcpServers", "kernelrepl")
ENTRY: dict[str, Any] = {"command": "/opt/käse/bin/kernelrepl", "args": ["-P"], "env": {"KERNELREPL_DATA_DIR": 'a"b'}}

SPACE = st.sampled_from(
    ["", " ", "\n", "\n  ", "\n    ", "\t", ' // words: { "a", }\n', "/* } */", "\n    /* two\nlines */ "]
)
NAMES = st.text(st.sampled_from('ab"\\/é\u2028{}:,'), max_size=3)
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(-99, 99), NAMES).map(json.dumps)


def array(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Arrays with any space, some with a trailing comma."""
    return st.tuples(SPACE, st.lists(st.tuples(values, SPACE), max_size=3), st.booleans()).map(
        lambda parts: "[" + _joined(parts[0], [value + space for value, space in parts[1]], parts[2]) + "]"
    )


def members(values: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    """Members of one object with different names, each with any space around it."""
    pieces = st.tuples(NAMES.map(json.dumps), SPACE, SPACE, values, SPACE)
    return st.lists(pieces, max_size=3, unique_by=lambda piece: piece[0]).map(
        lambda found: [f"{space}{name}:{before}{value}{after}" for name, space, before, value, after in found]
    )


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Objects with any space, some with a trailing comma."""
    return st.tuples(SPACE, members(values), st.booleans()).map(lambda parts: "{" + _joined(*parts) + "}")


def _joined(space: str, parts: list[str], is_open: bool) -> str:
    return space + ",".join(parts) + ("," if is_open and parts else "")


VALUES = st.recursive(PLAIN, lambda values: array(values) | objects(values), max_leaves=4)


@st.composite
def settings_texts(draw: st.DrawFn, has_entry: bool) -> str:
    """A configuration: with servers or without, with comments anywhere, with any line ends, with a mark before it."""
    parts, servers = draw(members(VALUES)), draw(members(VALUES))
    if has_entry:
        entry = f'{draw(SPACE)}"{PATH[1]}":{draw(SPACE)}{draw(objects(VALUES))}{draw(SPACE)}'
        servers.insert(draw(st.integers(0, len(servers))), entry)
    if has_entry or draw(st.booleans()):
        group = "{" + _joined(draw(SPACE), servers, draw(st.booleans())) + "}"
        group = f'{draw(SPACE)}"{PATH[0]}":{draw(SPACE)}{group}{draw(SPACE)}'
        parts.insert(draw(st.integers(0, len(parts))), group)
    text = draw(SPACE) + "{" + _joined(draw(SPACE), parts, draw(st.booleans())) + "}" + draw(SPACE)
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return draw(st.sampled_from(["", "\ufeff"])) + text


@given(settings_texts(has_entry=False))
def test_an_entry_comes_and_goes_in_any_json(text: str) -> None:
    """Only its own signs come; what it was is known afterwards, to the letter."""
    old = jsonc.load(text)
    after = jsonc.put(text, PATH, ENTRY)
    assert jsonc.load(after) == {**old, PATH[0]: {**old.get(PATH[0], {}), PATH[1]: ENTRY}}
    rest = iter(after)
    assert all(sign in rest for sign in text)
    note = host_files.note(text, after, False, ())
    assert note.undone(after) == text
    assert note.undone(after + " ") is None
    taken = jsonc.take(after, PATH)
    assert jsonc.load(taken) == {PATH[0]: {}, **old}
    assert taken.count("/*") == text.count("/*")


@settings(max_examples=200)
@given(settings_texts(has_entry=True))
def test_an_entry_that_is_there_is_replaced_or_taken_out(text: str) -> None:
    """Wherever it stands, and whatever stands around it."""
    old = jsonc.load(text)
    rest = {name: value for name, value in old[PATH[0]].items() if name != PATH[1]}
    assert jsonc.load(jsonc.take(text, PATH)) == {**old, PATH[0]: rest}
    after = jsonc.put(text, PATH, ENTRY)
    assert jsonc.load(after) == {**old, PATH[0]: {**rest, PATH[1]: ENTRY}}
    assert host_files.note(text, after, False, ()).undone(after) == text


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("others", [[], ["a"], ["a", "b"]])
def test_plain_json_stays_plain(others: list[str], indent: int | None) -> None:
    """Some hosts take neither comments nor a comma before a brace."""
    servers = {name: {"command": name} for name in others}
    plain = {"mcpServers": servers, "last": 1}
    after = jsonc.put(json.dumps(plain, indent=indent), PATH, ENTRY)
    assert json.loads(after)["mcpServers"] == {**servers, "kernelrepl": ENTRY}
    assert json.loads(jsonc.take(after, PATH)) == plain
    first = json.dumps({"mcpServers": {"kernelrepl": ENTRY, **servers}, "last": 1}, indent=indent)
    assert json.loads(jsonc.take(first, PATH)) == plain


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("", '{\n  "s": {\n    "n": {\n      "c": "x"\n    }\n  }\n}\n'),
        ("{}", '{\n  "s": {\n    "n": {\n      "c": "x"\n    }\n  }\n}'),
        ('{"a": 1}', '{"a": 1, "s": {"n": {"c": "x"}}}'),
        ('{"s": {}}', '{"s": {"n": {"c": "x"}}}'),
        ('{\n\t"s": {}\n}\n', '{\n\t"s": {\n\t\t"n": {\n\t\t\t"c": "x"\n\t\t}\n\t}\n}\n'),
        (
            '{\n    "s": {\n        // none yet\n    }\n}',
            '{\n    "s": {\n        // none yet\n        "n": {\n            "c": "x"\n        }\n    }\n}',
        ),
        (
            '{\n  "s": {\n    "a": 1 // one\n    // "b": 2\n  },\n}',
            '{\n  "s": {\n    "a": 1, // one\n    "n": {\n      "c": "x"\n    }\n    // "b": 2\n  },\n}',
        ),
        (
            '{\r\n  "s": {\r\n    "a": 1, // one\r\n  },\r\n}',
            '{\r\n  "s": {\r\n    "a": 1, // one\r\n    "n": {\r\n      "c": "x"\r\n    },\r\n  },\r\n}',
        ),
    ],
)
def test_an_entry_looks_like_its_neighbours(text: str, after: str) -> None:
    """Indentation, line ends and trailing commas are those of the file."""
    assert jsonc.put(text, ("s", "n"), {"c": "x"}) == after


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("{\n  'a': 1\n}", 2, "\"'a':\" is not JSON"),
        ('{\n  "a": 1\n  "b": 2\n}', 3, "a comma or a } is missing"),
        ('{\n  "a": [1, 2\n', 2, "a comma or a ] is missing"),
        ('{\n  "a":\n}', 3, "a value is missing"),
        ('{\n  "a"\n}', 3, "a colon is missing behind a name"),
        ("{\n  1: 2\n}", 2, "a name in double quotes or a } is missing"),
        ("{}\n{}", 2, "something follows the end of the settings"),
        ("[]", 1, "the file is to be an object in braces, and is not"),
        ('{\n"mcpServers": null}', 2, "'mcpServers' is to be an object in braces, and is not"),
        ('{"mcpServers": {},\n"mcpServers": {}}', 2, "'mcpServers' is there a second time"),
        ("[" * 5000, 1, "is nested too deeply"),
        ('{"a": "\n"}', 1, "'\"' is not JSON"),
        ("{ /* open }", 1, "'/*' is not JSON"),
    ],
)
def test_json_that_is_broken_is_said_with_its_line(text: str, line: int, why: str) -> None:
    """A person has to find it."""
    with pytest.raises(NotReadable) as caught:
        jsonc.put(text, PATH, ENTRY)
    assert (caught.value.line, caught.value.why) == (line, why)


TOML = """\
# my own settings
model = "o9"
notify = ["say", "done"] # loud

[mcp_servers.docs]   # another one
command = "docs"

[projects."/home/me"]
trust_level = "trusted"
"""
TABLE = ("mcp_servers", "kernelrepl")


@pytest.mark.parametrize("text", ["", "\n", "# only words", TOML, TOML.rstrip(), TOML.replace("\n", "\r\n")])
def test_a_table_comes_and_goes_in_toml(text: str) -> None:
    """At the end, so that nothing before it changes."""
    after = toml_tables.put(text, TABLE, {**ENTRY, "startup_timeout_sec": 60})
    assert after.startswith(text)
    assert ("\r\n" in text) == ("\r\n" in after)
    assert tomllib.loads(after)["mcp_servers"]["kernelrepl"] == {**ENTRY, "startup_timeout_sec": 60}
    assert host_files.note(text, after, False, ()).undone(after) == text
    assert toml_tables.take(after, TABLE).strip() == text.strip()


def test_a_table_goes_with_what_a_host_has_put_below_it() -> None:
    """And what others have put behind it stays."""
    after = toml_tables.put(TOML, TABLE, ENTRY)
    behind = "\n# of the next one\n[tui]\ntheme = 'x'\n"
    changed = after + "[mcp_servers.kernelrepl.tools.python_repl]\napproval_mode = 'approve'\n" + behind
    assert toml_tables.take(changed, TABLE) == TOML + "\n" + behind


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_is_a_toml_string(text: str) -> None:
    """The value of a variable may hold anything."""
    dumped = toml_tables.dump(TABLE, {"command": text, "env": {text: text}})
    assert tomllib.loads(dumped)["mcp_servers"]["kernelrepl"] == {"command": text, "env": {text: text}}


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a = 1\nb = = 2\n", 2, "Invalid value"),
        ("a = 1\nmcp_servers = 3\n", 2, "mcp_servers is not a table"),
        ("\nmcp_servers = { kernelrepl = { command = 'x' } }\n", 2, "mcp_servers.kernelrepl is not written as a table"),
        ("a = '''\n[mcp_servers.kernelrepl]\n'''\nmcp_servers.kernelrepl.a = 1", 2, "mcp_servers.kernelrepl is not"),
    ],
)
def test_toml_that_cannot_be_changed_is_said_with_its_line(text: str, line: int, why: str) -> None:
    """Instead of a file that means something else."""
    with pytest.raises(NotReadable) as caught:
        toml_tables.put(text, TABLE, ENTRY)
    assert caught.value.line == line
    assert caught.value.why.startswith(why)


@pytest.mark.parametrize("form", [jsonc, toml_tables])
def test_an_entry_alone_reads_as_it_is(form: ModuleType) -> None:
    """What `config` prints is what `install` writes."""
    assert form.load(form.dump(PATH, ENTRY)) == {PATH[0]: {PATH[1]: ENTRY}}


def test_a_difference_shows_what_changes_and_little_else() -> None:
    """Other servers have keys in the same file."""
    before = "\n".join(f"line {number}" for number in range(20)) + "\n"
    after = before.replace("line 10\n", "line 10\nnew\n")
    assert host_files.difference(Path("f"), before, after).splitlines() == [
        *("--- f", "+++ f", "@@ -10,4 +10,5 @@"),
        *(" line 9", " line 10", "+new", " line 11", " line 12"),
    ]
    new = host_files.difference(Path("f"), None, "a\nb\n")
    assert new.splitlines() == ["--- /dev/null", "+++ f", "@@ -0,0 +1,2 @@", "+a", "+b"]
