"""What a person at a terminal gets of commands that run code: in time, whole, where it belongs, and an exit code."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mcp_hosts import COMMAND, DEADLINE_S, Place, command, kill_9, says, wait_until, waits_for


@contextlib.contextmanager
def begun(environ: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs, its output in pipes."""
    with subprocess.Popen(
        [str(COMMAND), *arguments], env=environ, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


class Screen:
    """A terminal of 80 columns with a command in it."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.shown = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update({**environ, "TERM": "xterm", "COLUMNS": "80"})
            os.chdir("/")
            os.execv(str(COMMAND), [str(COMMAND), *arguments])
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read(self) -> bool:
        """Take what comes next; whether anything can still come."""
        assert select.select([self._terminal], [], [], DEADLINE_S)[0], self.shown
        try:
            piece = os.read(self._terminal, 4096)
        except OSError:
            return False
        self.shown += piece.decode()
        return bool(piece)

    def until(self, text: str) -> None:
        """Wait until this has been shown."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert time.monotonic() < deadline, self.shown
            assert self.read(), self.shown

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Wait for the end of the command; its exit code."""
        while self.read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)


# Output as it comes


def test_output_comes_while_the_code_runs(shared_environ: dict[str, str]) -> None:
    """Into a pipe as well: what is printed, what is displayed, and stderr, each before the code has ended."""
    code = (
        "import sys\nprint('first', flush=True)\nprint('other', file=sys.stderr, flush=True)\n"
        f"display('shown')\n{says('began')}\n{waits_for('go')}\nprint('last')\n1 + 1"
    )
    place = Place(shared_environ)
    with begun(shared_environ, "exec", "-s", "streams", code) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert [process.stdout.readline(), process.stdout.readline()] == ["first\n", "'shown'\n"]
        assert process.stderr.readline() == "other\n"
        assert process.poll() is None
        place.file("go", "streams").touch()
        out, error = process.communicate(timeout=DEADLINE_S)
    files = "⟦files⟧ wrote began (1 byte), go (0 bytes)\n"
    assert (out, error, process.returncode) == ("last\n2\n", files, 0)


def test_a_call_without_a_session_streams_too(shared_environ: dict[str, str]) -> None:
    """And what came is not lost with Ctrl-C."""
    with begun(shared_environ, "exec", "print('came', flush=True)\nimport time\ntime.sleep(600)") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "came\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130


def test_all_of_a_long_output_reaches_a_pipe(shared_environ: dict[str, str]) -> None:
    """No line is cut or left out, whether it came meanwhile or with the reply."""
    code = "for n in range(100_000): print(n)"
    done = command(shared_environ, "exec", "-s", "long", code)
    assert done.stdout.split() == [str(n) for n in range(100_000)]
    slow = "import time\nfor n in range(30_000):\n    print(n)\n    n % 3000 or time.sleep(0.15)"
    done = command(shared_environ, "exec", "-s", "long", slow)
    assert done.stdout.split() == [str(n) for n in range(30_000)]


def test_each_text_is_printed_once(shared_environ: dict[str, str]) -> None:
    """Letters without a line end, displays that are updated, output that is cleared, half of a colour."""
    pause = "time.sleep(0.25)"
    code = (
        "import time, sys\nfrom IPython.display import clear_output\n"
        f"print('a', end='', flush=True); {pause}\nprint('b', end='', flush=True); {pause}\nprint('c')\n"
        f"h = display('one', display_id=True); {pause}\nh.update('two'); {pause}\n"
        f"print('gone', flush=True); {pause}\nclear_output(); print('after', flush=True); {pause}\n"
        f"sys.stdout.write('\\x1b[3'); sys.stdout.flush(); {pause}\nprint('1mred\\x1b[0m')"
    )
    done = command(shared_environ, "exec", "-s", "once", code)
    assert done.stdout.splitlines() == ["abc", "'one'", "'two'", "gone", "after", "red"]


def test_a_progress_bar_is_one_line_in_a_pipe(shared_environ: dict[str, str]) -> None:
    """Only its last state, as if it had come at once."""
    loop = "for n in range(8):\n    print(f'\\r{n} of 7', end='', flush=True); time.sleep(0.1)"
    code = f"import time\n{loop}\nprint()\n'end'"
    assert command(shared_environ, "exec", code).stdout == "7 of 7\n'end'\n"


def test_what_the_keeper_says_goes_to_stderr(shared_environ: dict[str, str]) -> None:
    """So do a traceback and the code's own stderr; stdout has what a program would read."""
    code = "import sys\nstream = open('file', 'w')\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7"
    done = command(shared_environ, "exec", "-s", "sides", code)
    assert done.stdout == "out\n42\n"
    assert done.stderr.splitlines()[0] == "err"
    assert "⟦not saved⟧ stream" in done.stderr
    failed = command(shared_environ, "exec", "-s", "sides", "print('out')\n1/0")
    assert failed.stdout == "out\n"
    assert "ZeroDivisionError" in failed.stderr
    assert command(shared_environ, "exec", "None").stdout == ""


def test_a_reader_that_leaves_ends_the_command_quietly(shared_environ: dict[str, str]) -> None:
    """As with any other program in a pipe; no traceback."""
    code = "import time\nwhile True:\n    print('line', flush=True)\n    time.sleep(0.05)"
    with begun(shared_environ, "exec", "--timeout", "600", code) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == ""


# Exit codes


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("1", 0),
        ("1/0", 1),
        ("this is no code", 1),
        ("import sys; sys.exit(0)", 0),
        ("import sys; sys.exit()", 0),
        ("import sys; print('said'); sys.exit(7)", 7),
        ("import sys; sys.exit('no good')", 1),
        ("raise SystemExit(300)", 300 & 255),
        ("import os; os._exit(3)", 137),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_the_exit_code_tells_how_the_code_ended(shared_environ: dict[str, str], code: str, expected: int) -> None:
    """As a shell would have it of `python FILE`."""
    assert command(shared_environ, "exec", code).returncode == expected


def test_sys_exit_is_no_failure_that_is_explained(shared_environ: dict[str, str]) -> None:
    """What was printed is shown, and the text that was given as the reason; no traceback."""
    done = command(shared_environ, "exec", "import sys; print('said'); sys.exit('no good')")
    assert (done.stdout, done.stderr) == ("said\n", "no good\n")
    done = command(shared_environ, "exec", "import sys; print('said'); print('bad', file=sys.stderr); sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "bad\n")


def test_other_ends_have_codes_of_their_own(shared_environ: dict[str, str]) -> None:
    """Timed out, wrong usage, and what cannot be run at all."""
    slow = "print('seen', flush=True)\nwhile True: pass"
    done = command(shared_environ, "exec", "-s", "timed", "--timeout", "0.5", slow)
    assert (done.returncode, done.stdout) == (124, "seen\n")
    assert command(shared_environ, "exec", "--timeout", "0.5", slow).returncode == 124
    assert command(shared_environ, "exec", "--nonsense", "1").returncode == 2
    assert command(shared_environ, "exec", "-s", "no/name", "1").returncode == 125
    nowhere = {**shared_environ, "KERNELREPL_DATA_DIR": "/proc/nowhere"}
    assert command(nowhere, "exec", "1").returncode == 125


# What is run


def test_a_file_is_run(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """By its name if that ends in .py, or by --file, whatever it is called."""
    script = tmp_path / "script.py"
    script.write_text("\ufeffx = 'ä'\nx\n", encoding="utf-8")
    assert command(shared_environ, "exec", str(script)).stdout == "'ä'\n"
    other = tmp_path / "other"
    other.write_text("1 + 1")
    assert command(shared_environ, "exec", "--file", str(other)).stdout == "2\n"
    missing = command(shared_environ, "exec", "--file", str(tmp_path / "missing"))
    assert (missing.returncode, missing.stdout) == (125, "")
    assert "cannot be read" in missing.stderr


def test_a_file_name_that_is_taken_for_code_is_said(shared_environ: dict[str, str]) -> None:
    """Its NameError alone would puzzle."""
    done = command(shared_environ, "exec", "missing.py")
    assert done.returncode == 1
    assert "there is no file 'missing.py'" in done.stderr


def test_waiting_for_standard_input_is_said_on_a_terminal(shared_environ: dict[str, str]) -> None:
    """Else it looks as if it hangs."""
    screen = Screen(shared_environ, "exec")
    screen.until("Ctrl-D")
    screen.type("6 * 7\n\x04")
    assert screen.end() == 0
    assert "42" in screen.shown


def test_on_a_terminal_one_sees_that_code_still_runs(shared_environ: dict[str, str]) -> None:
    """On a line that the next output takes away."""
    place = Place(shared_environ)
    screen = Screen(shared_environ, "exec", "-s", "patient", f"{waits_for('go')}\nprint('done')")
    screen.until("running for")
    place.file("go", "patient").touch()
    assert screen.end() == 0
    assert re.search(r"\x1b\[Kdone\r\n⟦files⟧ wrote go \(0 bytes\)\r\n$", screen.shown)


def test_colours_reach_a_terminal_and_end_with_the_code(shared_environ: dict[str, str]) -> None:
    """What is said of the session is not hidden by them, and no line above is written over."""
    code = "print('\\x1b[31mred\\x1b[8m hidden \\x1b[5Aup\\x1b[\\x1b[A9A \\x1b]0;title\\x07')\nstream = open('f', 'w')"
    screen = Screen(shared_environ, "exec", "-s", "coloured", code)
    assert screen.end() == 0
    assert "\x1b[31mred\x1b[8m hidden up" in screen.shown
    assert not re.search(r"\x1b\[\d*A", screen.shown)
    assert screen.shown.index("\x1b[0m") < screen.shown.index("not saved")
    assert "title" not in screen.shown
    assert "\x1b" not in command(shared_environ, "exec", "-s", "coloured", code).stdout


def test_a_bare_command_on_a_terminal_says_what_it_is(shared_environ: dict[str, str]) -> None:
    """It would wait for JSON otherwise."""
    screen = Screen(shared_environ)
    assert screen.end() == 0
    assert "MCP server" in screen.shown
    assert "kernelrepl --help" in screen.shown


def test_figures_are_told_and_written_beside_older_ones(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """Never over them."""
    code = "import matplotlib.pyplot as plt\nplt.plot([1]);"
    assert "--save-figures" in command(shared_environ, "exec", code).stderr
    for expected in ("figure-1.png", "figure-2.png"):
        done = command(shared_environ, "exec", "--save-figures", str(tmp_path), code)
        assert done.stderr == f"figure: {tmp_path / expected}\n"


# Long work


def test_detached_code_is_awaited_later(shared_environ: dict[str, str]) -> None:
    """`wait` prints all that it shows, from its beginning, and ends as `exec` would have."""
    place = Place(shared_environ)
    code = f"print('early', flush=True)\n{says('began')}\n{waits_for('go')}\nraise SystemExit(5)"
    done = command(shared_environ, "exec", "-s", "detached", "--detach", code)
    assert (done.returncode, done.stdout) == (0, "")
    assert "`kernelrepl wait`" in done.stderr
    given_up = command(shared_environ, "wait", "detached", "--timeout", "0.3")
    assert given_up.returncode == 124
    with begun(shared_environ, "wait", "detached") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "early\n"
        place.file("go", "detached").touch()
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 5
    assert command(shared_environ, "exec", "--detach", "1").returncode == 2


def test_leaving_a_wait_stops_nothing(shared_environ: dict[str, str]) -> None:
    """Ctrl-C ends the command alone."""
    place = Place(shared_environ)
    code = f"print('early', flush=True)\n{says('began')}\n{waits_for('go')}\n'over'"
    command(shared_environ, "exec", "-s", "left", "--detach", code)
    with begun(shared_environ, "wait", "left") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "early\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    place.file("go", "left").touch()
    assert command(shared_environ, "wait", "left").stdout.splitlines()[-1] == "'over'"


def test_running_code_is_interrupted(shared_environ: dict[str, str]) -> None:
    """Its outcome is printed, and what it had changed is kept; with --force its kernel is ended."""
    for force in ((), ("--force",)):
        code = f"kept = 1\nprint('early', flush=True)\n{says('began' + ''.join(force))}\nwhile True: pass"
        command(shared_environ, "exec", "-s", "stopped", "--detach", code)
        wait_until(lambda force=force: Place(shared_environ).said("began" + "".join(force), "stopped"))  # type: ignore[misc]
        done = command(shared_environ, "interrupt", "stopped", *force)
        assert (done.returncode, done.stdout) == (0, "early\n")
        assert ("KernelDied" if force else "KeyboardInterrupt") in done.stderr
        assert command(shared_environ, "exec", "-s", "stopped", "kept").stdout == "1\n"
    assert "nothing was running" in command(shared_environ, "interrupt", "stopped").stderr


def test_stop_asks_while_code_runs(environ: dict[str, str]) -> None:
    """Without an answer nothing stops; with --yes it does."""
    command(environ, "exec", "-s", "s", "--detach", f"{says('began')}\n{waits_for('go')}")
    wait_until(lambda: Place(environ).said("began"))
    asked = command(environ, "stop")
    assert asked.returncode == 1
    assert "Code runs in s" in asked.stderr
    assert "--yes" in asked.stderr
    assert Place(environ).keepers()
    assert command(environ, "stop", "--yes").returncode == 0
    assert Place(environ).keepers() == []


# What a person asks of sessions


def test_a_session_is_cleared(shared_environ: dict[str, str]) -> None:
    """Its variables go; a no keeps them."""
    command(shared_environ, "exec", "-s", "cleared", "x = 1; y = 2")
    asked = command(shared_environ, "clear", "cleared", stdin="n\n")
    assert asked.returncode == 1
    assert "cleared" in asked.stderr
    screen = Screen(shared_environ, "clear", "cleared")
    screen.until("[y/N]")
    screen.type("\x03")
    assert screen.end() == 130
    assert command(shared_environ, "exec", "-s", "cleared", "x").stdout == "1\n"
    assert "2 variables removed" in command(shared_environ, "clear", "cleared", "--yes").stdout
    assert "NameError" in command(shared_environ, "exec", "-s", "cleared", "x").stderr


def test_a_session_is_renamed(environ: dict[str, str]) -> None:
    """Kernel, variables, files and history go with it, also through a kill; its old name is free."""
    command(environ, "exec", "-s", "old", "x = 1; live = (n for n in range(9)); open('f', 'w').write('kept')")
    assert command(environ, "rename", "old", "new").returncode == 0
    assert command(environ, "exec", "-s", "new", "next(live), x").stdout == "(0, 1)\n"
    kill_9(Place(environ).keeper)
    assert command(environ, "exec", "-s", "new", "x, open('f').read()").stdout == "(1, 'kept')\n"
    assert "NameError" in command(environ, "exec", "-s", "old", "x").stderr
    listed = json.loads(command(environ, "sessions", "--json").stdout)["sessions"]
    assert {entry["session_id"] for entry in listed} == {"old", "new"}
    assert len(json.loads(command(environ, "log", "new", "--json").stdout)["executions"]) == 3
    for names, said in ((("new", "old"), "already"), (("none", "other"), "no session"), (("new", "a/b"), "a/b")):
        done = command(environ, "rename", *names)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr


def test_a_session_in_use_is_not_renamed(shared_environ: dict[str, str]) -> None:
    """It would be lost to whoever waits."""
    place = Place(shared_environ)
    command(shared_environ, "exec", "-s", "used", "--detach", f"{says('began')}\n{waits_for('go')}")
    wait_until(lambda: place.said("began", "used"))
    done = command(shared_environ, "rename", "used", "other")
    assert done.returncode == 1
    assert "code runs in it" in done.stderr
    place.file("go", "used").touch()
    command(shared_environ, "wait", "used")
    assert command(shared_environ, "rename", "used", "other-name").returncode == 0


def test_a_log_tells_what_ran(shared_environ: dict[str, str]) -> None:
    """Code, who ran it, how it ended, and what was saved; the latest last."""
    for code in ("x = 1", "x = 2; y = 3", "1/0", "del y; stream = open('f', 'w')"):
        command(shared_environ, "exec", "-s", "logged", code)
    found = json.loads(command(shared_environ, "log", "logged", "--json").stdout)["executions"]
    assert [entry["code"] for entry in found] == ["x = 1", "x = 2; y = 3", "1/0", "del y; stream = open('f', 'w')"]
    assert [entry["status"] for entry in found] == ["ok", "ok", "error", "ok"]
    assert found[1]["changed"] == ["x"]
    assert found[1]["created"] == ["y"]
    assert (found[3]["deleted"], found[3]["not_saved"]) == (["y"], ["stream"])
    shown = command(shared_environ, "log", "logged", "-n", "2")
    assert re.search(r"^\[3\] \d{4}-\d\d-\d\d \d\d:\d\d:\d\d by cli: error in ", shown.stdout, re.MULTILINE)
    assert "    1/0\n" in shown.stdout
    assert "  not saved: stream\n" in shown.stdout
    assert "x = 1" not in shown.stdout
    assert "2 more came before" in shown.stderr


def test_waits_and_limits_of_time_are_checked(shared_environ: dict[str, str]) -> None:
    """`wait --timeout 0` only looks; code that may not run at all is a mistake of whoever types it."""
    command(shared_environ, "exec", "-s", "looked", "1")
    assert command(shared_environ, "wait", "looked", "--timeout", "0").returncode == 0
    for number in ("0", "-1", "abc"):
        assert command(shared_environ, "exec", "--timeout", number, "1").returncode == 2


def test_a_log_tells_how_long_it_took_until_a_kernel_died(shared_environ: dict[str, str]) -> None:
    """As long as it ran, in the log and in the reply."""
    code = "import os, time; time.sleep(0.4); os.kill(os.getpid(), 9)"
    reply = json.loads(command(shared_environ, "exec", "-s", "died", "--json", code).stdout)
    [entry] = json.loads(command(shared_environ, "log", "died", "--json").stdout)["executions"]
    assert entry["status"] == reply["status"] == "crashed"
    assert reply["duration_s"] > 0.3
    assert entry["duration_s"] > 0.3
    assert "crashed in 0 ms" not in command(shared_environ, "log", "died").stdout


def test_a_session_is_watched(shared_environ: dict[str, str]) -> None:
    """What others run is shown as it runs: what began before, and what begins later; leaving stops nothing."""
    place = Place(shared_environ)
    code = f"print('early', flush=True)\n{says('began')}\n{waits_for('go')}\nprint('late')"
    command(shared_environ, "exec", "-s", "watched", "0")
    command(shared_environ, "exec", "-s", "watched", "--detach", code)
    wait_until(lambda: place.said("began", "watched"))
    with begun(shared_environ, "watch", "watched") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "early\n"
        place.file("go", "watched").touch()
        assert process.stdout.readline() == "late\n"
        command(shared_environ, "exec", "-s", "watched", "1/0")
        command(shared_environ, "exec", "-s", "watched", "'quick'")
        assert process.stdout.readline() == "'quick'\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert re.findall(r"^⟦(\w+)⟧ in", said, re.MULTILINE) == ["ok", "error", "ok"]
    assert "⟦code⟧ 1/0" in said
    assert "ZeroDivisionError" in said


def test_lists_fit_the_terminal_and_are_whole_in_a_pipe(shared_environ: dict[str, str]) -> None:
    """No line is longer than the terminal is wide; a pipe gets every name as it is."""
    name = "n" * 90
    command(shared_environ, "exec", "-s", name, "x = 'word ' * 40; y = 1")
    screen = Screen(shared_environ, "sessions")
    assert screen.end() == 0
    assert max(map(len, screen.shown.split("\r\n"))) <= 80
    assert name in command(shared_environ, "sessions").stdout
    screen = Screen(shared_environ, "variables", name)
    assert screen.end() == 0
    assert max(map(len, screen.shown.split("\r\n"))) <= 80
    assert "NAME" in screen.shown


def test_folders_go_in_and_come_out(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """With all that is below, and without what links lead to."""
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "one.txt").write_text("1")
    (tree / "a" / "b" / "two.txt").write_text("2")
    (tree / "link").symlink_to("/etc/passwd")
    command(shared_environ, "exec", "-s", "folders", "0")
    assert command(shared_environ, "put", "folders", str(tree)).returncode == 0
    look = "import os\nsorted(os.path.join(p, f) for p, _, fs in os.walk('tree') for f in fs)"
    assert command(shared_environ, "exec", "-s", "folders", look).stdout == "['tree/a/b/two.txt', 'tree/one.txt']\n"
    command(shared_environ, "exec", "-s", "folders", "os.symlink('/etc/passwd', 'tree/out'); os.mkfifo('tree/pipe')")
    back = tmp_path / "back"
    done = command(shared_environ, "get", "folders", "tree", "--to", str(back))
    assert done.returncode == 0, done.stderr
    found = sorted(str(path.relative_to(back)) for path in back.rglob("*") if not path.is_dir())
    assert found == ["tree/a/b/two.txt", "tree/one.txt"]
    assert (back / "tree" / "a" / "b" / "two.txt").read_text() == "2"
