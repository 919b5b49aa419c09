"""What is found out about files that code has written: exactly those, near the top, and over no link."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from kernelrepl.model import ChangedFile, ExecutionResult, FileChanges, Output
from kernelrepl.outputs import remarks, shortening
from kernelrepl.workspaces import beneath, changes, directories


@pytest.fixture(params=["openat2", "step by step"])
def workspace(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "step by step":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)
    elif not beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    path = tmp_path / "workspace"
    path.mkdir()
    return path


def later() -> int:
    """The time when an execution begins, after everything that was written until now."""
    before = time.time_ns()
    while (found := changes.now()) <= before:
        time.sleep(0.001)
    return found


def written(workspace: Path, began: int) -> list[str]:
    return [file.path for file in changes.Watch(workspace).look(began).written]


def test_new_and_changed_files_are_found_with_their_sizes(workspace: Path) -> None:
    """In directories as well, in the order of their paths; what was there before is no news."""
    (workspace / "old").write_text("old")
    (workspace / "grown").write_text("a")
    began = later()
    (workspace / "b.csv").write_text("12345")
    (workspace / "deep" / "er").mkdir(parents=True)
    (workspace / "deep" / "er" / "a.csv").write_text("")
    with (workspace / "grown").open("a") as file:
        file.write("b")
    assert (workspace / "old").read_text() == "old"
    found = changes.Watch(workspace).look(began)
    assert found.written == (ChangedFile("b.csv", 5), ChangedFile("deep/er/a.csv", 0), ChangedFile("grown", 2))
    assert not found.may_be_more
    assert changes.Watch(workspace).look(later()) == FileChanges()


def test_a_change_that_hides_itself_is_found(workspace: Path) -> None:
    """Of the same size, with the times that the file had before, or by another name."""
    for name in ("same", "moved"):
        (workspace / name).write_text("aaaa")
    before = (workspace / "same").stat()
    began = later()
    (workspace / "same").write_text("bbbb")
    os.utime(workspace / "same", ns=(before.st_atime_ns, before.st_mtime_ns))
    (workspace / "moved").rename(workspace / "to")
    (workspace / "dated").write_text("x")
    os.utime(workspace / "dated", (0, 0))
    assert written(workspace, began) == ["dated", "same", "to"]


def test_a_change_is_told_once(workspace: Path) -> None:
    """The clock of files moves in ticks: the next execution may begin in the one in which this was written."""
    watch = changes.Watch(workspace)
    began = later()
    (workspace / "f").touch()
    assert [file.path for file in watch.look(began).written] == ["f"]
    assert watch.look(began) == FileChanges()
    assert watch.look(began) == FileChanges()
    later()
    (workspace / "f").touch()
    (workspace / "g").touch()
    assert [file.path for file in watch.look(began).written] == ["f", "g"]


def test_what_is_removed_again_is_not_told(workspace: Path) -> None:
    """There is nothing to read."""
    began = later()
    (workspace / "f").touch()
    (workspace / "f").unlink()
    assert written(workspace, began) == []


def test_only_files_count_and_no_link_is_followed(workspace: Path, tmp_path: Path) -> None:
    """Whatever links lead to was changed as well."""
    began = later()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").touch()
    (workspace / "link").symlink_to("/etc/passwd")
    (workspace / "file link").symlink_to(outside / "secret")
    (workspace / "directory link").symlink_to(outside)
    (workspace / "loop").symlink_to("loop")
    os.mkfifo(workspace / "pipe")
    (workspace / "directory").mkdir()
    (workspace / "file").touch()
    assert written(workspace, began) == ["file"]


def test_the_workspace_itself_may_be_no_link(workspace: Path, tmp_path: Path) -> None:
    """And one that is gone has no files."""
    began = later()
    (workspace / "f").touch()
    (tmp_path / "link").symlink_to(workspace)
    assert written(tmp_path / "link", began) == []
    assert written(tmp_path / "none", began) == []


@pytest.mark.parametrize(
    "name", ["__pycache__/x.py", ".ipynb_checkpoints/a.ipynb", ".cache/f", ".hidden", "m.pyc", "f~", "a.db-wal"]
)
def test_what_libraries_write_by_themselves_is_not_told(workspace: Path, name: str) -> None:
    """Nobody has asked for it."""
    began = later()
    (workspace / name).parent.mkdir(exist_ok=True)
    (workspace / name).touch()
    (workspace / "a.db").touch()
    assert written(workspace, began) == ["a.db"]


def test_a_closed_directory_does_not_matter(workspace: Path) -> None:
    """It stays closed, and the rest is told."""
    began = later()
    (workspace / "closed").mkdir()
    (workspace / "closed" / "f").touch()
    (workspace / "closed").chmod(0)
    (workspace / "open").touch()
    assert "open" in written(workspace, began)  # root sees the other as well
    assert (workspace / "closed").stat().st_mode & 0o777 == 0
    (workspace / "closed").chmod(0o700)


def test_a_look_has_a_bound(workspace: Path) -> None:
    """What is near the top is found first. That there may be more is said only where something has changed."""
    (workspace / "many").mkdir()
    for number in range(3 * changes.MOST_LOOKED):
        (workspace / "many" / str(number)).touch()
    began = later()
    assert changes.Watch(workspace).look(began) == FileChanges()
    (workspace / "out.csv").touch()
    assert changes.Watch(workspace).look(began) == FileChanges((ChangedFile("out.csv", 0),))
    (workspace / "many" / "new").touch()
    found = changes.Watch(workspace).look(began)
    assert ChangedFile("out.csv", 0) in found.written
    assert found.may_be_more


def test_many_directories_have_the_same_bound(workspace: Path) -> None:
    """Those that nobody looks into may have changed; their times tell."""
    for number in range(2 * changes.MOST_LOOKED):
        (workspace / str(number)).mkdir()
    began = later()
    assert not changes.Watch(workspace).look(began).may_be_more
    for number in range(2 * changes.MOST_LOOKED):
        (workspace / str(number) / "f").touch()
    assert changes.Watch(workspace).look(began).may_be_more


def test_what_lies_very_deep_is_said_to_be_there(workspace: Path) -> None:
    """A path may have thousands of parts, and be longer than the system takes."""
    began = later()
    at = os.open(workspace, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    found = changes.Watch(workspace).look(began)
    directories.remove(workspace)  # others give up on such a depth
    assert found.written == ()
    assert found.may_be_more


@pytest.mark.parametrize("name", [b"new\nline", b"\x1b[2J", b"\xff\xfe", "⟦note⟧".encode(), b"100%25", b"a b"])
def test_a_name_may_be_anything(workspace: Path, name: bytes) -> None:
    """It is told as the system has it, and shown as a field."""
    began = later()
    os.close(os.open(os.fsencode(workspace) + b"/" + name, os.O_CREAT | os.O_WRONLY))
    found = changes.Watch(workspace).look(began)
    assert [os.fsencode(file.path) for file in found.written] == [name]
    [line] = remarks.endings(ExecutionResult("s", "ok", Output(), sandbox="tier 1", files=found))
    assert line.startswith("⟦files⟧ wrote ")
    assert line.count("⟦") == 1
    assert line.isprintable()


# What a person has put


def test_what_was_put_is_told_once_and_not_as_written(workspace: Path) -> None:
    """Also if it came while code ran."""
    began = later()
    (workspace / "in").mkdir()
    (workspace / "in" / "data.csv").write_text("abc")
    changes.note_put(workspace, "in/data.csv", 3)
    (workspace / "out.csv").touch()
    found = changes.Watch(workspace).look(began)
    assert found == FileChanges((ChangedFile("out.csv", 0),), (ChangedFile("in/data.csv", 3),))
    assert changes.Watch(workspace).look(later()) == FileChanges()
    assert not directories.notes(workspace).exists()


def test_what_was_put_and_then_changed_is_both(workspace: Path) -> None:
    """A person brings a file, and code in the session adds to it."""
    began = later()
    (workspace / "data.csv").write_text("abc")
    changes.note_put(workspace, "data.csv", 3)
    later()
    with (workspace / "data.csv").open("a") as file:
        file.write("d")
    assert changes.Watch(workspace).look(began) == FileChanges(
        (ChangedFile("data.csv", 4),), (ChangedFile("data.csv", 3),)
    )


def test_what_was_put_twice_is_told_with_its_last_size(workspace: Path) -> None:
    """`put --force` replaces it."""
    for size in (1, 2):
        changes.note_put(workspace, "f", size)
    assert changes.Watch(workspace).look(later()).put == (ChangedFile("f", 2),)


def test_notes_that_are_none_are_passed_over(workspace: Path) -> None:
    """A line may have been cut when the disk was full."""
    lines = ["1", "{}", "[]", '["a", "b", 1]', '["a", 1', "\ud800", "[" * 100_000]
    directories.notes(workspace).write_text("\n".join(lines), errors="surrogatepass")
    changes.note_put(workspace, "f", 1)
    changes.note_put(workspace, "g", 1)
    assert ChangedFile("g", 1) in changes.Watch(workspace).look(later()).put


def test_notes_go_with_the_workspace(workspace: Path) -> None:
    """Nothing of a deleted session stays."""
    changes.note_put(workspace, "f", 1)
    directories.remove(workspace)
    assert not directories.notes(workspace).exists()


# How it is told


def told(files: FileChanges, session_id: str | None = "s") -> list[str]:
    """The lines of a reply about files."""
    execution = ExecutionResult(session_id, "ok", Output(), sandbox="tier 1", files=files)
    return remarks.endings(shortening.of_reply(execution, 20_000, lambda text, chars: text[:chars]))


def test_files_take_one_line(workspace: Path) -> None:
    """With sizes as people say them; nothing if there are none."""
    assert told(FileChanges()) == []
    assert told(FileChanges((ChangedFile("out.csv", 12_300), ChangedFile("a/b", 0)))) == [
        "⟦files⟧ wrote out.csv (12.3 KB), a/b (0 bytes)"
    ]
    [line] = told(FileChanges(written=(ChangedFile("a (1 KB). It's allowed (", 1),)))
    assert line == "⟦files⟧ wrote 'a (1 KB). It\\'s allowed (' (1 byte)"
    assert told(FileChanges(put=(ChangedFile("d.csv", 1),))) == ["⟦files⟧ put by a person: d.csv (1 byte)"]
    assert told(FileChanges((ChangedFile("f", 2),)), None) == [
        "⟦files⟧ gone with this call: f (2 bytes); a session_id keeps files"
    ]


def test_many_files_are_counted() -> None:
    """Ten thousand cost a model as much as twenty, and long names none at all."""
    many = tuple(ChangedFile(f"file-{number}", 1) for number in range(10_000))
    [line] = told(FileChanges(many))
    assert line.endswith(", 9,980 more")
    assert len(line) < 1000
    [line] = told(FileChanges((ChangedFile("x" * 4000, 1), ChangedFile("f", 2))))
    assert line == "⟦files⟧ wrote f (2 bytes), 1 more"
    [line] = told(FileChanges((ChangedFile("x" * 4000, 1),)))
    assert line == "⟦files⟧ wrote 1 with long names"
    [line] = told(FileChanges(may_be_more=True))
    assert "there may be more" in line
    both = told(FileChanges(many, many))
    assert sum(map(len, both)) < 2000


def test_a_note_is_one_line_whatever_a_file_is_called(workspace: Path) -> None:
    """Line ends in it are escaped."""
    changes.note_put(workspace, "a\nb", 1)
    [line] = directories.notes(workspace).read_text().splitlines()
    assert json.loads(line)[0] == "a\nb"
