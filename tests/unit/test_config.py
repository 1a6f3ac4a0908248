from pathlib import Path

import pytest

from agent.config import ConfigError, lines, load


def write(folder: Path, text: str, name: str = "a.toml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(write(folder, text), environment={})
    words = str(caught.value)
    assert "\n" not in words
    assert str(folder / "a.toml") in words
    return words


def test_defaults_work_without_any_file() -> None:
    config = load(environment={}).config
    assert config.store == "local"
    assert config.agent.interval_seconds == 10.0


def test_later_files_override_only_the_keys_they_set(tmp_path: Path) -> None:
    first = write(tmp_path, 'cluster = "a"\n[agent]\ninterval_seconds = 5\n', "first.toml")
    second = write(tmp_path, "[agent]\nflush_seconds = 3\n", "second.toml")
    loaded = load(second, environment={"ROOFLIGHT_CONFIG": str(first)})
    assert loaded.config.cluster == "a"
    assert loaded.config.agent.interval_seconds == 5.0
    assert loaded.config.agent.flush_seconds == 3.0
    assert loaded.origins == {
        "cluster": first,
        "agent.interval_seconds": first,
        "agent.flush_seconds": second,
    }
    shown = lines(loaded, with_origin=True)
    assert f"agent.flush_seconds = 3.0  # {second}" in shown
    assert 'store = "local"  # default' in shown


def test_an_unknown_key_names_the_nearest_right_one(tmp_path: Path) -> None:
    words = complaint(tmp_path, "[agent]\ninterval_second = 5\n")
    assert "unknown key 'agent.interval_second'; did you mean 'agent.interval_seconds'?" in words


def test_an_unknown_key_like_no_other_lists_the_known_ones(tmp_path: Path) -> None:
    assert "known keys here: url" in complaint(tmp_path, "[grafana]\nzzzzzz = 1\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '[agent]\ninterval_seconds = "often"\n',
            "agent.interval_seconds: expected float, got str",
        ),
        ("[agent]\ninterval_seconds = 0\n", "agent.interval_seconds: expected float >= 0.02"),
        ("[agent]\ninterval_seconds = -1\n", "it is -1"),
        ('store = "prometheus"\n', "store: invalid enum value 'prometheus'"),
        ("cluster = 7\n", "cluster: expected str, got int; it is 7"),
        ('[influx]\nurl = "localhost:8086"\n', "influx.url: expected str matching regex"),
        ("[agent\n", "not TOML"),
    ],
)
def test_a_wrong_value_names_file_key_and_value(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(tmp_path, text)


def test_a_missing_file_that_was_named_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read: No such file"):
        load(tmp_path / "absent.toml", environment={})


def test_relative_paths_start_at_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, '[agent]\nstate_directory = "state"\n')
    config = load(file, environment={}).config
    assert config.state_directory() == tmp_path / "state"
    assert config.socket_path() == tmp_path / "state" / "agent.sock"
    assert config.local_path() == tmp_path / "state" / "rooflight.db"
