"""What a person types: each command as a real process, its output, its exit code, its words when it cannot."""

from __future__ import annotations

import json
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kernelrepl import __version__
from kernelrepl.config import Settings
from tests.conftest import this_tier
from tests.support.mcp_hosts import COMMAND, DEADLINE_S, Place, command, kill_9, says, wait_until, waits_for

COMMANDS = (
    "exec",
    "wait",
    "interrupt",
    "watch",
    "log",
    "clear",
    "rename",
    "sessions",
    "variables",
    "workspace",
    "put",
    "get",
    "delete",
    "export",
    "import",
    "stop",
    "status",
    "doctor",
)


# Running code


def test_exec_prints_the_output(shared_environ: dict[str, str]) -> None:
    """What was printed, then the last expression; exit code 0."""
    done = command(shared_environ, "exec", "print('hello')\n6 * 7")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n42\n", "")


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_exec_reads_code_from_stdin(shared_environ: dict[str, str], arguments: tuple[str, ...]) -> None:
    """Without code, or with a dash for it."""
    done = command(shared_environ, "exec", *arguments, stdin="for n in range(2):\n    print(n)\n")
    assert (done.returncode, done.stdout) == (0, "0\n1\n")


def test_ctrl_c_interrupts_the_code_and_prints_what_came(shared_environ: dict[str, str]) -> None:
    """What it had changed is kept; the exit code is the one that shells have for it."""
    code = f"kept = 5\nprint('seen', flush=True)\n{says('began')}\nimport time\ntime.sleep(600)"
    words = [str(COMMAND), "exec", "-s", "endless", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, env=shared_environ, cwd="/", stdout=pipe, stderr=pipe, text=True) as process:
        wait_until(lambda: Place(shared_environ).said("began", "endless"))
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert printed == "seen\n"
    assert "KeyboardInterrupt" in said
    assert command(shared_environ, "exec", "-s", "endless", "kept").stdout == "5\n"


def test_ctrl_c_ends_code_without_a_session(shared_environ: dict[str, str]) -> None:
    """Nothing of it goes on, and nothing is printed."""
    command(shared_environ, "exec", "0")
    keeper = Place(shared_environ).keeper
    before = set(keeper.children(recursive=True))
    words = [str(COMMAND), "exec", "import time; time.sleep(600)"]
    with subprocess.Popen(words, env=shared_environ, cwd="/", stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: set(keeper.children(recursive=True)) - before)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, printed) == (130, "")
    wait_until(lambda: not set(keeper.children(recursive=True)) - before)


def test_a_call_survives_the_death_of_the_keeper(shared_environ: dict[str, str]) -> None:
    """The next keeper says what became of the code; the command does not notice."""
    place = Place(shared_environ)
    code = f"n = 1\n{says('began')}\n{waits_for('go')}"
    words = [str(COMMAND), "exec", "-s", "outlives", code]
    with subprocess.Popen(words, env=shared_environ, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: place.said("began", "outlives"))
        kill_9(place.keeper)
        _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 137
    assert "crashed" in said


def test_exec_keeps_state_in_a_session(shared_environ: dict[str, str]) -> None:
    """With -s the next command finds what this one made; without it, it does not."""
    assert command(shared_environ, "exec", "-s", "keeps", "x = 41").returncode == 0
    assert command(shared_environ, "exec", "-s", "keeps", "x + 1").stdout == "42\n"
    assert command(shared_environ, "exec", "--session", "keeps", "x").stdout == "41\n"
    assert "NameError" in command(shared_environ, "exec", "x").stderr


def test_exec_as_json_prints_the_structured_result(shared_environ: dict[str, str]) -> None:
    """The same fields that an agent gets, and nothing else on stdout."""
    done = command(shared_environ, "exec", "-s", "json", "--json", "x = 1\nprint('ä')\nx")
    result = json.loads(done.stdout)
    assert (result["session_id"], result["status"], result["result"]) == ("json", "ok", "1")
    assert result["stdout"] == "ä\n"
    assert result["saved"]["created"] == ["x"]
    assert result["committed"] is True


def test_exec_exits_with_1_when_the_code_fails(shared_environ: dict[str, str]) -> None:
    """The traceback is shown; as JSON, status and error tell."""
    done = command(shared_environ, "exec", "1/0")
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    done = command(shared_environ, "exec", "--json", "1/0")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["name"] == "ZeroDivisionError"


def test_exec_stops_code_at_its_timeout(shared_environ: dict[str, str]) -> None:
    """Exit code 124, and what was done until then is kept."""
    done = command(shared_environ, "exec", "-s", "slow", "--timeout", "0.5", "done = 1\nwhile True: pass")
    assert done.returncode == 124
    assert "timeout" in done.stderr
    assert command(shared_environ, "exec", "-s", "slow", "done").stdout == "1\n"


def test_exec_saves_figures(shared_environ: dict[str, str], tmp_path: Path) -> None:
    """Each open figure becomes a file, whose name is said on stderr."""
    code = "import matplotlib.pyplot as plt\nfor n in range(2):\n    plt.figure(); plt.plot([n])"
    done = command(shared_environ, "exec", "--save-figures", str(tmp_path / "figures"), code)
    assert done.returncode == 0
    files = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in files] == ["figure-1.png", "figure-2.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)
    assert done.stderr.split() == ["figure:", str(files[0]), "figure:", str(files[1])]


def test_exec_refuses_a_bad_session_name(shared_environ: dict[str, str]) -> None:
    """Exit code 125, one line on stderr that says what a name may be."""
    done = command(shared_environ, "exec", "-s", "no/name", "1")
    assert (done.returncode, done.stdout) == (125, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("kernelrepl: session name 'no/name'")


# Sessions


def test_sessions_are_listed(shared_environ: dict[str, str]) -> None:
    """One line for each, with what it holds."""
    command(shared_environ, "exec", "-s", "listed", "x = 1; y = 2")
    done = command(shared_environ, "sessions")
    assert done.returncode == 0
    heads, *lines = done.stdout.splitlines()
    assert heads.split() == ["SESSION", "VARIABLES", "SIZE", "RUNS", "LAST", "USED", "KERNEL", *(
        [] if this_tier().label == "tier 1" else ["SANDBOX"]
    )]  # fmt: skip
    [line] = [line for line in lines if line.startswith("listed ")]
    assert re.search(r"listed +2 +\d+ B +1 +just now +idle", line)


def test_variables_are_listed(shared_environ: dict[str, str]) -> None:
    """One line for each, with type and size, and a word when it is not saved."""
    command(shared_environ, "exec", "-s", "variables", "x = 42; stream = open('file', 'w')")
    done = command(shared_environ, "variables", "variables")
    assert done.returncode == 0
    assert re.search(r"^x +int +28 B +42$", done.stdout, re.MULTILINE)
    assert re.search(r"^stream .*NOT SAVED", done.stdout, re.MULTILINE)


def test_an_unknown_session_is_said_with_a_close_name(shared_environ: dict[str, str]) -> None:
    """Exit code 1, and a hint for a typing error."""
    command(shared_environ, "exec", "-s", "analysis", "1")
    for arguments in (("variables", "analysys"), ("delete", "--yes", "analysys")):
        done = command(shared_environ, *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "did you mean 'analysis'" in done.stderr


def test_delete_asks_first(shared_environ: dict[str, str]) -> None:
    """A no keeps the session, --yes deletes it without a question."""
    command(shared_environ, "exec", "-s", "doomed", "x = 1")
    refused = command(shared_environ, "delete", "doomed", stdin="n\n")
    assert refused.returncode == 1
    assert "doomed " in command(shared_environ, "sessions").stdout
    done = command(shared_environ, "delete", "--yes", "doomed")
    assert (done.returncode, done.stdout) == (0, "session 'doomed' is deleted\n")
    assert "doomed " not in command(shared_environ, "sessions").stdout
    assert "NameError" in command(shared_environ, "exec", "-s", "doomed", "x").stderr


# The keeper


def test_stop_ends_the_keeper_and_keeps_the_sessions(environ: dict[str, str]) -> None:
    """When the command returns the keeper is gone; the next one starts another, which restores."""
    command(environ, "exec", "-s", "s", "x = 1")
    place = Place(environ)
    keeper = place.keeper
    done = command(environ, "stop")
    assert done.returncode == 0
    assert not keeper.is_running() or keeper.status() == "zombie"
    assert not (place.data_dir / "keeper.json").exists()
    assert place.keepers() == []
    again = command(environ, "exec", "-s", "s", "x")
    assert "restored" in again.stderr
    assert again.stdout == "1\n"


def test_stop_without_a_keeper_says_so(environ: dict[str, str]) -> None:
    """There is nothing to do, which is no failure, and nothing is started."""
    done = command(environ, "stop")
    assert (done.returncode, done.stdout) == (0, "no keeper is running\n")
    assert Place(environ).keepers() == []


# Doctor and settings


def test_doctor_tells_of_control_groups(shared_environ: dict[str, str]) -> None:
    """In one line, by the word of the keeper that runs: which controllers hold, or why none."""
    command(shared_environ, "exec", "1")
    output = command(shared_environ, "doctor").stdout
    [line] = [line for line in output.splitlines() if line.startswith("control groups of kernels: ")]
    assert line.startswith("control groups of kernels: none: ") or ", in /" in line


def settings_of(output: str) -> dict[str, tuple[str, str]]:
    """What doctor says about settings: value and origin of each."""
    found = re.findall(r"^  (\w+) = (.*?)  \((.*)\)$", output, re.MULTILINE)
    return {name: (value, origin) for name, value, origin in found}


def test_doctor_says_what_there_is(environ: dict[str, str]) -> None:
    """Version, packages, paths, the sandbox, and each setting with its value and origin; it starts no keeper."""
    done = command(environ, "doctor")
    assert done.returncode == 0, done.stderr
    place = Place(environ)
    for expected in (
        f"kernelrepl {__version__}",
        "mcp 2.",
        "ipykernel 7.",
        f"data directory: {place.data_dir}",
        f"runtime directory: {place.runtime_dir}",
        f"log: {place.data_dir / 'logs' / 'keeper.log'}",
        "config file: " + str(Path(environ["HOME"]) / ".config" / "kernelrepl" / "config.toml") + " (not there)",
        "keeper: not running",
        f"sandbox: {this_tier().label}",
    ):
        assert expected in done.stdout
    found = settings_of(done.stdout)
    assert re.search(r"^packages of sessions: (installed by /|.*`pip install uv`)", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("\nverdict: all is well\n")
    assert set(found) == set(Settings.model_fields)
    assert found["data_dir"] == (str(place.data_dir), "KERNELREPL_DATA_DIR")
    assert found["max_variable_bytes"] == ("10000000", "default")
    assert place.keepers() == []


def test_doctor_says_what_the_keeper_does(environ: dict[str, str]) -> None:
    """Its pid, and how many sessions, kernels and clients it has."""
    command(environ, "exec", "-s", "s", "x = 1")
    done = command(environ, "doctor")
    pid = Place(environ).keeper.pid
    assert f"keeper: running, pid {pid}, version {__version__}, 1 session, 1 kernel, 0 clients" in done.stdout
    ours = str(Path(sys.executable).parent)  # it has several names
    assert f"  it runs in Python {platform.python_version()} ({ours}/python" in done.stdout
    assert f"  new sessions from here run in {ours}/python" in done.stdout


def test_doctor_says_where_a_setting_comes_from(environ: dict[str, str], tmp_path: Path) -> None:
    """The variable wins over config.toml, and that over the default."""
    file = tmp_path / "config.toml"
    file.write_text("idle_timeout_s = 60\nmax_output_chars = 1000\nmax_variable_bytes = 'unlimited'\n")
    environ = {**environ, "KERNELREPL_CONFIG": str(file), "KERNELREPL_MAX_OUTPUT_CHARS": "2000"}
    done = command(environ, "doctor")
    found = settings_of(done.stdout)
    assert found["idle_timeout_s"] == ("60.0", str(file))
    assert found["max_output_chars"] == ("2000", "KERNELREPL_MAX_OUTPUT_CHARS")
    assert found["max_variable_bytes"] == ("unlimited", str(file))
    assert found["max_session_bytes"][1] == "default"
    assert f"config file: {file}\n" in done.stdout


def test_what_is_set_while_a_keeper_runs_waits_for_the_next(environ: dict[str, str], tmp_path: Path) -> None:
    """Doctor and status say so, with both values; what a client brings along for its sessions counts at once."""
    file = tmp_path / "config.toml"
    file.write_text("idle_timeout_s = 60\n")
    environ = {**environ, "KERNELREPL_CONFIG": str(file)}
    command(environ, "exec", "1")
    assert "wait for the next start" not in command(environ, "status").stdout
    assert command(environ, "doctor").stdout.endswith("\nverdict: all is well\n")
    file.write_text("idle_timeout_s = 70\nmax_output_chars = 300\n")
    brought = {**environ, "KERNELREPL_SAVE_DEADLINE_S": "9"}
    for name in ("status", "doctor"):
        printed = command(brought, name).stdout
        assert "  idle_timeout_s = 70.0, and the keeper has 60.0\n" in printed
        assert "  max_output_chars = 300, and the keeper has 20000\n" in printed
        assert "save_deadline_s = 9.0, and" not in printed
    assert "stop` lets the next keeper have max_output_chars, idle_timeout_s\n" in printed
    assert "truncated" not in command(brought, "exec", "print('a' * 2000)").stdout
    command(environ, "stop")
    command(environ, "exec", "1")
    assert "wait for the next start" not in command(environ, "status").stdout


def test_a_keeper_goes_on_with_what_it_has_read(environ: dict[str, str], tmp_path: Path) -> None:
    """A file that is broken meanwhile keeps nobody out whose data directory is known; status says what is wrong."""
    file = tmp_path / "config.toml"
    environ = {**environ, "KERNELREPL_CONFIG": str(file)}
    command(environ, "exec", "1")
    file.write_text("idle_timeout_s = 'soon'\n")
    assert command({**environ, "KERNELREPL_SAVE_DEADLINE_S": "9"}, "exec", "6 * 7").stdout == "42\n"
    printed = command(environ, "status").stdout
    assert "keeper: running" in printed
    assert "settings: idle_timeout_s = 'soon'" in printed


def test_doctor_knows_a_place_where_no_keeper_can_start(environ: dict[str, str], tmp_path: Path) -> None:
    """It promises none; the verdict names the place."""
    (tmp_path / "file").write_text("")
    done = command({**environ, "KERNELREPL_DATA_DIR": str(tmp_path / "file" / "data")}, "doctor")
    assert done.returncode == 1
    assert "keeper: not running; none can start\n" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(f"verdict: {tmp_path / 'file'} is no directory; ")


def test_the_config_file_chooses_the_data_directory(environ: dict[str, str], tmp_path: Path) -> None:
    """All commands, and the keeper they start, go where the file says."""
    file = tmp_path / "config.toml"
    file.write_text(f"data_dir = '{environ['KERNELREPL_DATA_DIR']}'\nmax_output_chars = 200\n")
    chosen = {name: value for name, value in environ.items() if name != "KERNELREPL_DATA_DIR"}
    chosen["KERNELREPL_CONFIG"] = str(file)
    done = command(chosen, "exec", "-s", "s", "--json", "print('a' * 500)")
    assert json.loads(done.stdout)["truncated"] is True
    assert (Path(environ["KERNELREPL_DATA_DIR"]) / "python_sessions.db").exists()
    assert command(chosen, "stop").returncode == 0


def failure(arguments: tuple[str, ...]) -> int:
    """What a command exits with that could not do its work: `exec` tells this from code that failed."""
    return 125 if arguments[0] == "exec" else 1


def assert_shows_the_rest(environ: dict[str, str], printed: str, named: str) -> None:
    """What the doctor shows does not depend on settings that are in order; its last line says what is not."""
    place = Place(environ)
    assert f"data directory: {place.data_dir}\n" in printed
    assert f"runtime directory: {place.runtime_dir}\n" in printed
    assert f"sandbox: {this_tier().label}" in printed
    *_, verdict = printed.splitlines()
    assert verdict.startswith("verdict: ")
    assert named in verdict


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_OUTPUT_CHARS", "12"),
        ("MAX_OUTPUT_CHARS", "many"),
        ("IDLE_TIMEOUT_S", "0"),
        ("MAX_VARIABLE_BYTES", "-1"),
        ("SAVE_DEADLINE_S", "nan"),
    ],
)
@pytest.mark.parametrize("arguments", [("doctor",), ("exec", "1")])
def test_a_bad_value_is_said_with_the_name_of_its_setting(
    environ: dict[str, str], arguments: tuple[str, ...], name: str, value: str
) -> None:
    """One line on stderr, no traceback; the doctor shows all else, and ends with it."""
    done = command({**environ, f"KERNELREPL_{name}": value}, *arguments)
    assert done.returncode == failure(arguments)
    if arguments == ("doctor",):
        assert_shows_the_rest(environ, done.stdout, name.lower())
    else:
        assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("kernelrepl: ")
    assert name.lower() in line
    assert value in line


def test_a_bad_value_is_said_when_a_keeper_runs_already(environ: dict[str, str]) -> None:
    """The keeper that serves others refuses this client and says why."""
    command(environ, "exec", "1")
    done = command({**environ, "KERNELREPL_MAX_OUTPUT_CHARS": "12"}, "exec", "1")
    assert (done.returncode, done.stdout) == (125, "")
    [line] = done.stderr.splitlines()
    assert "max_output_chars" in line


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("max_varible_bytes = 1\n", "max_varible_bytes"),
        ("idle_timeout_s = 'soon'\n", "idle_timeout_s"),
        ("data_dir = [\n", "config.toml"),
        ("[table]\nx = 1\n", "table"),
    ],
)
@pytest.mark.parametrize("arguments", [("doctor",), ("exec", "1"), ("sessions",)])
def test_a_bad_config_file_is_said(
    environ: dict[str, str], tmp_path: Path, content: str, named: str, arguments: tuple[str, ...]
) -> None:
    """One line that names the file and what is wrong in it; the doctor shows all else."""
    file = tmp_path / "config.toml"
    file.write_text(content)
    done = command({**environ, "KERNELREPL_CONFIG": str(file)}, *arguments)
    assert done.returncode == failure(arguments)
    if arguments == ("doctor",):
        assert_shows_the_rest(environ, done.stdout, named)
    else:
        assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert named in line
    assert str(file) in line


# The command itself


def test_version_is_the_version(environ: dict[str, str]) -> None:
    """As every command says it."""
    done = command(environ, "--version")
    assert done.returncode == 0
    assert __version__ in done.stdout


def test_help_names_every_command(environ: dict[str, str]) -> None:
    """Each with a line about it, and help of its own; what is not for people is left out."""
    done = command(environ, "--help")
    assert done.returncode == 0
    listed = re.findall(r"^  ([a-z]+)  +\S", done.stdout, re.MULTILINE)
    assert set(listed) >= set(COMMANDS)
    assert "keeper" not in listed
    for name in listed:
        own = command(environ, name, "--help")
        assert own.returncode == 0
        assert name in own.stdout


def test_an_unknown_command_is_a_usage_error(environ: dict[str, str]) -> None:
    """Exit code 2 and a hint, no traceback."""
    done = command(environ, "frobnicate")
    assert (done.returncode, done.stdout) == (2, "")
    assert "frobnicate" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (("export", "demo", "demo.ipynb"), "-o FILE"),
        (("stop", "demo"), "`interrupt NAME`"),
        (("sessions", "demo"), "`variables NAME`"),
        (("exec", "demo", "1 + 1"), "-s NAME"),
    ],
)
def test_what_is_probably_meant_is_said(environ: dict[str, str], arguments: tuple[str, ...], remedy: str) -> None:
    """Of an argument too many; nothing is run, and no keeper is started."""
    done = command(environ, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert remedy in done.stderr
