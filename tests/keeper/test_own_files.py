"""Files of the person in a folder that a session may write to: no link in it leads to another one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelrepl.errors import AccessRefused
from kernelrepl.sandbox import resolve_access
from kernelrepl.workspaces import beneath, own_files
from kernelrepl.workspaces.entrances import within
from tests.keeper.test_workspace_files import SECRET, flip_directory, flip_file, flipping, names
from tests.support.mcp_hosts import command

PICTURE = """
import base64
from IPython.display import Image, display
display(Image(data=base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==')))
"""


@pytest.fixture(params=["openat2", "step by step"])
def _opening(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to open a name."""
    if request.param == "openat2" and not beneath.has_openat2():
        pytest.skip("this kernel has no openat2")
    if request.param != "openat2":
        monkeypatch.setattr(beneath, "has_openat2", lambda: False)


@pytest.fixture
def place(tmp_path: Path, _opening: None) -> Path:
    found = tmp_path / "granted"
    found.mkdir()
    return found


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "outside" / "secret"
    path.parent.mkdir()
    path.write_bytes(SECRET)
    return path


def read(path: Path | str, *places: Path) -> bytes:
    with own_files.open_file(path, list(map(str, places))) as opened:
        return opened.read()


def test_a_path_is_followed_until_it_is_in_a_place(tmp_path: Path) -> None:
    """Links and dots of the person's lead there; those in there are not looked at."""
    (tmp_path / "a" / "granted" / "inner").mkdir(parents=True)
    place = str(tmp_path / "a" / "granted")
    (tmp_path / "way").symlink_to("a/granted")
    (tmp_path / "far").symlink_to(f"{place}/inner")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a" / "granted" / "link").symlink_to("/etc")
    for path, rest in {
        "way": [],
        "way/f": ["f"],
        "a/../way/inner/../f": ["f"],
        "far/x": ["inner", "x"],
        "far/../x": ["x"],
        "a/granted/link/passwd": ["link", "passwd"],
        "a/granted/link/../../granted/f": ["f"],
        "way/link/../inner": ["inner"],
    }.items():
        assert within(f"{tmp_path}/{path}", [place]) == (place, rest), path
    for path in ("a", "a/granted2", "a/granted/..", "way/../x", "loop/x", "nothing", "../granted"):
        assert within(f"{tmp_path}/{path}", [place]) is None, path
    assert within(f"{place}/inner/x", [f"{place}/inner", place]) == (place, ["inner", "x"])
    assert within(place, []) is None


def test_files_in_a_place_are_opened_over_no_link(place: Path, secret: Path, tmp_path: Path) -> None:
    """Neither the last name nor one on the way; what is named without links is read, and links elsewhere are."""
    (place / "d").mkdir()
    (place / "d" / "f").write_bytes(b"mine")
    (place / "link").symlink_to(secret)
    (place / "way").symlink_to(secret.parent)
    (place / "inside").symlink_to("d")
    (tmp_path / "person").symlink_to(place)
    assert read(place / "d" / "f", place) == b"mine"
    assert read(tmp_path / "person" / "d" / "f", place) == b"mine"
    for name in ("link", "way/secret", "inside/f"):
        with pytest.raises(OSError, match="where a session may write"):
            read(place / name, place)
    for name in ("link", "way/secret"):
        assert read(place / name) == SECRET
    with pytest.raises(FileNotFoundError):
        read(place / "none", place)


def test_a_file_that_was_granted_by_itself_is_read(place: Path) -> None:
    """Its directory is not a session's, and it is no directory."""
    (place / "f").write_bytes(b"mine")
    assert read(place / "f", place / "f") == b"mine"
    with pytest.raises(NotADirectoryError):
        own_files.open_directory(place / "f", [str(place / "f")])


def test_a_pipe_in_a_place_does_not_make_us_wait(place: Path) -> None:
    """As one of the person's own does."""
    os.mkfifo(place / "pipe")
    with pytest.raises(OSError, match="no file"):
        read(place / "pipe", place)


def test_directories_in_a_place_are_made_over_no_link(place: Path, secret: Path) -> None:
    """What is made lies in there, and a file that is written replaces the link."""
    (place / "way").symlink_to(secret.parent)
    with pytest.raises(OSError, match=r"where a session may write|Not a directory"):
        own_files.open_directory(place / "way" / "new", [str(place)], make=True)
    os.close(own_files.open_directory(place / "a" / "b", [str(place)], make=True))
    assert (place / "a" / "b").is_dir()
    (place / "a" / "name").symlink_to(secret)
    own_files.write(place / "a" / "name", b"new", [str(place)])
    assert ((place / "a" / "name").read_bytes(), (place / "a" / "name").is_symlink()) == (b"new", False)
    assert (names(secret.parent), secret.read_bytes()) == (["secret"], SECRET)


@pytest.mark.parametrize("flip", [flip_file, flip_directory])
def test_links_that_come_and_go_lead_nowhere(place: Path, secret: Path, flip: object) -> None:
    """Neither to read nor to write."""
    path = place / "name" if flip is flip_file else place / "name" / "secret"
    seen = {"mine": 0, "refused": 0}
    with flipping(flip(place, secret)) as done:  # type: ignore[operator]
        while not done.is_set():
            try:
                assert read(path, place) == b"mine"
                seen["mine"] += 1
            except OSError:
                seen["refused"] += 1
            with contextlib.suppress(OSError):
                own_files.write(path.with_name("written"), b"mine", [str(place)])
    assert min(seen.values()) > 0, seen
    assert (names(secret.parent), secret.read_bytes()) == (["secret"], SECRET)


def test_a_grant_leads_over_no_link_of_a_session(place: Path, secret: Path, tmp_path: Path) -> None:
    """Who may write there would choose what another one reads. The person's own links are resolved."""
    (place / "data").mkdir()
    (place / "link").symlink_to(secret.parent)
    (tmp_path / "person").symlink_to(place / "data")
    written = [str(place)]
    assert resolve_access([str(tmp_path / "person")], [], [], (), written).read == (str(place / "data"),)
    for name in ("link", "link/secret"):
        path = str(place / name)
        grants: list[tuple[list[str], list[str]]] = [([path], []), ([], [path])]
        for read, write in grants:
            with pytest.raises(AccessRefused, match="where a session may write; name what the link leads to"):
                resolve_access(read, write, [], (), written)
        assert resolve_access([str(place / name)], [], []).read == (str((place / name).resolve()),)


# The commands


@pytest.fixture(scope="module")
def granted(tmp_path_factory: pytest.TempPathFactory, shared_environ: dict[str, str]) -> Iterator[tuple[Path, Path]]:
    """A folder that a session writes to, which has put links there, and a secret beside it."""
    top = tmp_path_factory.mktemp("person")
    for above in (top, top.parent):
        above.chmod(0o755)
    place, secret = top / "granted", top / "outside" / "secret"
    place.mkdir()
    place.chmod(0o777)
    secret.parent.mkdir()
    secret.write_bytes(SECRET)
    environ = {**shared_environ, "KERNELREPL_ALLOW_WRITE": str(place)}
    code = f"""
import os
os.symlink({str(secret)!r}, {str(place / "link")!r})
os.symlink({str(secret.parent)!r}, {str(place / "way")!r})
os.symlink({str(secret)!r}, {str(place / "figure-1.png")!r})
os.mkfifo({str(place / "pipe")!r})
open('f', 'w').write('content'), open('secret', 'w').write('content')
"""
    assert command(environ, "exec", "-s", "laid", code).returncode == 0
    yield place, secret
    command(shared_environ, "delete", "laid", "--yes")


@pytest.mark.slow
def test_commands_follow_no_link_that_a_session_has_put_there(
    shared_environ: dict[str, str], granted: tuple[Path, Path]
) -> None:
    """Each refusal is a line with what to do; nothing is read or written behind a link."""
    place, secret = granted
    for arguments in (
        ("put", "laid", str(place / "link")),
        ("put", "laid", str(place / "way" / "secret")),
        ("get", "laid", "f", "secret", "--force", "--to", str(place / "way")),
        ("get", "laid", "f", "--to", str(place / "way" / "new")),
        ("export", "laid", "--force", "-o", str(place / "way" / "secret")),
        ("import", str(place / "link"), "-s", "laid"),
        ("import", str(place / "way" / "secret"), "-s", "laid"),
        ("exec", "-s", "laid", "--save-figures", str(place / "way"), PICTURE),
        ("grant", "laid", "--read", str(place / "link")),
    ):
        done = command(shared_environ, *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), (arguments, done.stderr)
        assert "where a session may write" in done.stderr or "Not a directory" in done.stderr, done.stderr
    done = command(shared_environ, "put", "laid", str(place / "pipe"))
    assert (done.returncode, "it is no file" in done.stderr) == (1, True)
    assert (names(secret.parent), secret.read_bytes()) == (["secret"], SECRET)


def test_commands_write_in_the_place_of_a_link(shared_environ: dict[str, str], granted: tuple[Path, Path]) -> None:
    """And read what is there without one, by the person's own links as well."""
    place, secret = granted
    (place.parent / "person").symlink_to(place)
    for arguments in (
        ("exec", "-s", "laid", "--save-figures", str(place), PICTURE),
        ("export", "laid", "--force", "-o", str(place / "link")),
        ("import", str(place / "link"), "-s", "again"),
        ("get", "laid", "f", "--force", "--to", str(place.parent / "person" / "new")),
        ("put", "laid", str(place.parent / "person" / "new" / "f"), "--force"),
    ):
        done = command(shared_environ, *arguments)
        assert done.returncode == (1 if arguments[0] == "import" else 0), (arguments, done.stderr)  # cells that fail
    assert (place / "figure-2.png").read_bytes().startswith(b"\x89PNG")  # the first name is taken by a link
    assert (place / "new" / "f").read_text() == "content"
    assert (names(secret.parent), secret.read_bytes()) == (["secret"], SECRET)
