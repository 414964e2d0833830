"""The list of all keys of a run's TOML agrees with the config classes."""

from pathlib import Path

from cli.configuration_reference import ROOT, reference, sections
from flows.runtime.configuration import RunConfig


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), (
        "run `python -m cli.configuration_reference > docs/configuration.md`"
    )


def test_every_key_of_every_class_is_listed() -> None:
    page = reference()
    listed = dict(sections(RunConfig, ""))
    assert {"data", "data.files.interactions", "train.index", "monitor"} <= set(listed)
    for config in listed.values():
        for key in config.model_fields:
            assert f"| `{key}` |" in page, (config, key)
    assert str(Path.home()) not in page
