from pathlib import Path

import pytest

from shortlist.config import Config, ConfigError, Settings, load_toml


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
