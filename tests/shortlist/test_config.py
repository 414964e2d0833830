"""Loading TOML configs and settings: types, error messages, paths relative to the file."""

import re
from pathlib import Path

import pytest

from shortlist.config import Config, ConfigError, ConfigPath, Settings, load_toml
from shortlist.datasets import DataConfig


class Inner(Config):
    size: int = 3


class Outer(Config):
    name: str
    inner: Inner = Inner()


def load(tmp_path: Path, text: str) -> Outer:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return load_toml(path, Outer)


def test_toml_becomes_a_frozen_typed_config(tmp_path):
    config = load(tmp_path, 'name = "a"\n[inner]\nsize = 5\n')
    assert config == Outer(name="a", inner=Inner(size=5))
    with pytest.raises(ValueError, match="frozen"):
        config.name = "b"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "a"\nsizes = 1\n', "run.toml: sizes: unknown key"),
        ("", "run.toml: name: is required"),
        ('name = "a"\n[inner]\nsize = "big"\n', r"inner.size: .*integer.*got 'big'"),
        ("name = ", "run.toml: not valid TOML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, text)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_toml(tmp_path / "none.toml", Outer)
    with pytest.raises(ConfigError, match="is a folder, want a TOML file"):
        load_toml(tmp_path, Outer)


def test_settings_come_from_the_environment_and_from_shortlist_toml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SHORTLIST_HOME", raising=False)
    assert Settings().home == Path("var")
    (tmp_path / "shortlist.toml").write_text('home = "elsewhere"\nclock = "replay"\n')
    assert Settings().home == Path("elsewhere")
    assert Settings().clock == "replay"
    monkeypatch.setenv("SHORTLIST_HOME", "here")
    assert Settings().home == Path("here")
    assert Settings().releases == Path("here/releases")


def test_an_unknown_clock_is_refused(monkeypatch):
    monkeypatch.setenv("SHORTLIST_CLOCK", "sundial")
    with pytest.raises(ValueError, match="clock"):
        Settings()


def test_a_home_has_a_short_stable_name_that_no_other_has(tmp_path, monkeypatch):
    one, other = (
        Settings(home=tmp_path / "a" / "My Shop"),
        Settings(home=tmp_path / "b" / "My Shop"),
    )
    assert re.fullmatch(r"my_shop_[0-9a-f]{6}", one.home_name)
    assert one.home_name != other.home_name
    monkeypatch.chdir(tmp_path)
    assert Settings(home=Path("a/../a/My Shop")).home_name == one.home_name
    assert re.fullmatch(r"home_[0-9a-f]{6}", Settings(home=Path("/")).home_name)


class Places(Config):
    gates: ConfigPath = Path("/defaults/gates.toml")
    log: ConfigPath


@pytest.mark.parametrize(
    ("text", "gates", "log"),
    [
        ('log = "data/log.csv"', "/defaults/gates.toml", "{folder}/data/log.csv"),
        ('gates = "g.toml"\nlog = "/data/log.csv"', "{folder}/g.toml", "/data/log.csv"),
    ],
)
def test_paths_of_a_file_are_relative_to_that_file(tmp_path, monkeypatch, text, gates, log):
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "run.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = load_toml("configs/run.toml", Places)
    assert found.gates == Path(gates.format(folder=folder))
    assert found.log == Path(log.format(folder=folder))
    # Reading the JSON of a config, as a run does, keeps the paths.
    assert Places.model_validate_json(found.model_dump_json()) == found


def test_the_data_of_a_run_lies_beside_its_file(tmp_path):
    """Paths of data files are relative to the config; URIs and preset names are kept."""
    path = tmp_path / "run.toml"
    path.write_text(
        'source = "files"\n[[files.interactions]]\npath = "logs/*.csv"\nevent_type = "click"\n'
        'columns = { user_id = "u", item_id = "i", event_timestamp = "t" }\n'
        '[files.items]\npath = "s3://shop/items.parquet"\ncolumns = { item_id = "i" }\n'
    )
    files = load_toml(path, DataConfig).files
    assert files is not None
    assert files.interactions[0].path == f"{tmp_path}/logs/*.csv"
    assert files.items is not None
    assert files.items.path == "s3://shop/items.parquet"
    path.write_text('source = "simulated"\nsimulated.preset = "own.toml"\n')
    world = load_toml(path, DataConfig).simulated
    assert world is not None
    assert world.preset == f"{tmp_path}/own.toml"
    path.write_text('source = "simulated"\nsimulated.preset = "tiny"\n')
    world = load_toml(path, DataConfig).simulated
    assert world is not None
    assert world.preset == "tiny"


def test_paths_cannot_leave_the_data_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class WithPath(Config):
        path: ConfigPath

    root = tmp_path / "data"
    root.mkdir()
    (root / "link").symlink_to("/etc")
    toml = root / "run.toml"

    def read(path: str) -> Path:
        toml.write_text(f'path = "{path}"\n')
        return load_toml(toml, WithPath).path

    assert read("/etc/hostname") == Path("/etc/hostname")
    monkeypatch.setenv("SHORTLIST_DATA_ROOT", str(root))
    assert read("log.csv") == root / "log.csv"
    for outside in ("/etc/hostname", "../other.csv", "link/hostname"):
        with pytest.raises(ConfigError, match="path: lies outside of SHORTLIST_DATA_ROOT="):
            read(outside)


def test_email_needs_a_key() -> None:
    with pytest.raises(ValueError, match="notify_email needs notify_sendgrid_key"):
        Settings(notify_email=("ops@example.org",))
