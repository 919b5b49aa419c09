"""Settings: where they come from, which one wins, and what is said about one that cannot be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from kernelrepl import config
from kernelrepl.errors import InvalidSettings
from kernelrepl.model import Limits


@pytest.fixture(autouse=True)
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The config file of a person who has set nothing; it is not there yet."""
    for name in [name for name in os.environ if name.startswith(config.PREFIX)]:
        monkeypatch.delenv(name)
    path = tmp_path / "config.toml"
    monkeypatch.setenv("KERNELREPL_CONFIG", str(path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return path


def test_without_anything_the_defaults_are_in_force(tmp_path: Path) -> None:
    """They are what the descriptions and the README say."""
    settings = config.load()
    assert settings.data_dir == tmp_path / "share" / "kernelrepl"
    assert settings.runtime_dir is None
    assert settings.python == sys.executable
    assert settings.limits() == Limits() == Limits(10_000_000, 100_000_000, 10.0)
    assert (settings.max_output_chars, settings.idle_timeout_s) == (20_000, 900.0)
    assert settings.max_history_bytes == 100_000_000


def test_every_setting_is_described() -> None:
    """A description is the only documentation of a setting."""
    assert all(field.description for field in config.Settings.model_fields.values())


def test_reading_writes_nothing(config_file: Path, tmp_path: Path) -> None:
    """Neither the file nor a directory comes into being."""
    config.load()
    config.origins(os.environ)
    assert list(tmp_path.iterdir()) == []
    assert not config_file.exists()


def test_the_file_sets(config_file: Path) -> None:
    """In TOML, with its own types."""
    config_file.write_text('data_dir = "/data"\nmax_variable_bytes = 7\nidle_timeout_s = 1.5\n')
    settings = config.load()
    assert (settings.data_dir, settings.max_variable_bytes, settings.idle_timeout_s) == (Path("/data"), 7, 1.5)


def test_the_environment_wins_over_the_file_and_an_argument_over_both(
    config_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each setting for itself."""
    config_file.write_text("max_variable_bytes = 1\nmax_session_bytes = 1\nmax_output_chars = 201\n")
    monkeypatch.setenv("KERNELREPL_MAX_VARIABLE_BYTES", "2")
    monkeypatch.setenv("KERNELREPL_MAX_SESSION_BYTES", "2")
    settings = config.load({"max_variable_bytes": 3})
    assert (settings.max_variable_bytes, settings.max_session_bytes, settings.max_output_chars) == (3, 2, 201)


@pytest.mark.parametrize("value", ["0", "unlimited", " Unlimited "])
@pytest.mark.parametrize("name", ["max_variable_bytes", "max_session_bytes"])
def test_a_byte_limit_can_be_lifted_from_the_environment(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the word, or by none at all."""
    monkeypatch.setenv(f"KERNELREPL_{name.upper()}", value)
    assert getattr(config.load(), name) is None


@pytest.mark.parametrize(
    ("value", "expected"), [("4GB", 4 * 10**9), ("1.5 MB", 1_500_000), ("2GiB", 2 << 30), ("10k", 10_000)]
)
def test_a_size_may_have_a_unit(value: str, expected: int, config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file and in the environment; powers of ten, or of two where the unit says so."""
    config_file.write_text(f'max_variable_bytes = "{value}"\nmax_history_bytes = "{value}"\n')
    settings = config.load()
    assert (settings.max_variable_bytes, settings.max_history_bytes) == (expected, expected)
    monkeypatch.setenv("KERNELREPL_MAX_MEMORY_BYTES", value)
    assert config.load().max_memory_bytes == expected


@pytest.mark.parametrize("value", ["0", '"0"', '"unlimited"'])
def test_a_byte_limit_can_be_lifted_in_the_file(value: str, config_file: Path) -> None:
    """The same, as a number or a text."""
    config_file.write_text(f"max_variable_bytes = {value}\nmax_session_bytes = {value}\n")
    assert config.load().limits() == Limits(None, None, 10.0)


@pytest.mark.parametrize(
    ("value", "expected"), [("0", 0), ("7", 7), ("unlimited", None), (" Unlimited ", None), ("100000000", 100_000_000)]
)
def test_no_history_is_not_the_same_as_all_of_it(
    value: str, expected: int | None, monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    """0 is a budget that nothing fits into; only the word lifts this limit."""
    config_file.write_text(f'max_history_bytes = "{value}"\n')
    assert config.load().max_history_bytes == expected
    config_file.write_text("max_history_bytes = 1\n")
    monkeypatch.setenv("KERNELREPL_MAX_HISTORY_BYTES", value)
    assert config.load().max_history_bytes == expected


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", "false", "true", "[0]", '"none"', '""'])
def test_a_budget_of_history_that_cannot_be_used_is_named(value: str, config_file: Path) -> None:
    """Whatever stands there."""
    config_file.write_text(f"max_history_bytes = {value}\n")
    with pytest.raises(InvalidSettings, match="max_history_bytes"):
        config.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_variable_bytes", "-1"),
        ("max_variable_bytes", "many"),
        ("max_variable_bytes", "1e6"),
        ("max_variable_bytes", ""),
        ("max_session_bytes", "10 apples"),
        ("max_output_chars", "199"),
        ("max_output_chars", "unlimited"),
        ("save_deadline_s", "0"),
        ("save_deadline_s", "soon"),
        ("idle_timeout_s", "-3"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, config_file: Path
) -> None:
    """The setting, its value, and where to correct it."""
    monkeypatch.setenv(f"KERNELREPL_{name.upper()}", value)
    with pytest.raises(InvalidSettings) as caught:
        config.load()
    assert f"{name} = {value!r}:" in str(caught.value)
    assert str(config_file) in str(caught.value)
    assert "KERNELREPL_" in str(caught.value)


@pytest.mark.parametrize("value", ["-5", "1.5", "inf", "nan", "false", "[1]", "{a = 1}", '"x"', "1979-05-27"])
def test_a_value_in_the_file_that_cannot_be_used_is_named(value: str, config_file: Path) -> None:
    """Whatever TOML can express instead of a number of bytes."""
    config_file.write_text(f"max_variable_bytes = {value}\n")
    with pytest.raises(InvalidSettings, match="max_variable_bytes"):
        config.load()


def test_every_wrong_setting_is_named_at_once(config_file: Path) -> None:
    """Nobody wants to start three times."""
    config_file.write_text("max_output_chars = 1\nidle_timeout_s = 0\n")
    with pytest.raises(InvalidSettings, match=r"max_output_chars = 1: .*; idle_timeout_s = 0: "):
        config.load()


def test_a_setting_that_does_not_exist_is_named(config_file: Path) -> None:
    """A typing error in the file would otherwise be a setting that does nothing."""
    config_file.write_text("max_variable_byte = 5\n")
    with pytest.raises(InvalidSettings, match="there is no setting 'max_variable_byte'"):
        config.load()


@pytest.mark.parametrize("content", [b"max_output_chars", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_named(content: bytes, config_file: Path) -> None:
    """With what is wrong in it."""
    config_file.write_bytes(content)
    with pytest.raises(InvalidSettings, match="cannot be read") as caught:
        config.load()
    assert str(config_file) in str(caught.value)


def test_a_client_brings_its_own_session_settings(monkeypatch: pytest.MonkeyPatch, config_file: Path) -> None:
    """They win over the keeper's environment and file; what it does not bring stays the keeper's."""
    config_file.write_text("max_output_chars = 300\n")
    monkeypatch.setenv("KERNELREPL_MAX_VARIABLE_BYTES", "1000")
    monkeypatch.setenv("KERNELREPL_SAVE_DEADLINE_S", "3")
    keeper = config.load()
    own = config.for_client(
        keeper, {"KERNELREPL_MAX_VARIABLE_BYTES": "0", "KERNELREPL_PYTHON": "/usr/bin/python3", "PATH": "/bin"}
    )
    assert own.limits() == Limits(None, 100_000_000, 3.0)
    assert (own.python, own.max_output_chars) == ("/usr/bin/python3", 300)
    assert keeper.max_variable_bytes == 1000


def test_a_client_does_not_change_what_is_the_keepers(tmp_path: Path) -> None:
    """Directories and the idle time are no matter of one client."""
    keeper = config.load({"data_dir": tmp_path / "mine", "idle_timeout_s": 5})
    environment = {
        "KERNELREPL_DATA_DIR": "/elsewhere",
        "KERNELREPL_RUNTIME_DIR": "/elsewhere",
        "KERNELREPL_IDLE_TIMEOUT_S": "1",
    }
    assert config.for_client(keeper, environment) is keeper
    with_own = config.for_client(keeper, {**environment, "KERNELREPL_MAX_OUTPUT_CHARS": "500"})
    assert with_own.model_dump() == {**keeper.model_dump(), "max_output_chars": 500}


def test_a_client_with_a_setting_that_cannot_be_used_is_told() -> None:
    """By name, as everybody else."""
    with pytest.raises(InvalidSettings, match="max_output_chars = 'few'"):
        config.for_client(config.load(), {"KERNELREPL_MAX_OUTPUT_CHARS": "few"})


def test_each_setting_says_where_it_comes_from(config_file: Path) -> None:
    """The variable, the file, or neither."""
    config_file.write_text("max_variable_bytes = 5\nmax_output_chars = 300\n")
    origins = config.origins({"KERNELREPL_MAX_VARIABLE_BYTES": "6", "KERNELREPL_NO_SUCH": "1"})
    assert origins["max_variable_bytes"] == "KERNELREPL_MAX_VARIABLE_BYTES"
    assert origins["max_output_chars"] == str(config_file)
    assert origins["data_dir"] == "default"
    assert list(origins) == list(config.Settings.model_fields)
