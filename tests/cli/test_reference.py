"""The generated pages agree with the code, and every entry of the code is on them."""

import re
from pathlib import Path

import pytest

from cli.reference.commands import benchmarks, commands
from cli.reference.configuration import ENVIRONMENT, FILES, meaning_of, sections
from cli.reference.markdown import ROOT, text
from cli.reference.metrics import QUALITY, service_metrics
from cli.reference.pages import FOLDER, PAGES
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.operation import OPERATION
from monitoring.traffic.whole import WHOLE_MEASURES
from shortlist.config import Settings
from shortlist.features.descriptions import described
from shortlist.features.finalize import CONTEXT_FEATURES, ITEM_FEATURES, USER_FEATURES
from shortlist.features.state_descriptions import MEANINGS


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: page() for name, page in PAGES.items()}


def test_the_pages_are_up_to_date(pages: dict[str, str]) -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(pages)
    stale = [name for name, page in pages.items() if (FOLDER / name).read_text() != page]
    assert stale == [], "run `python -m cli.reference`"
    assert not any(str(Path.home()) in page or str(ROOT) in page for page in pages.values())


def test_every_key_is_listed_with_its_meaning(pages: dict[str, str]) -> None:
    found = {path: schema for _, _, root in FILES for path, schema in sections(root, "")}
    assert {"data.files.interactions", "train.index", "guardrail", "arm", "pin"} <= set(found)
    for schema in found.values():
        for name, field in schema.model_fields.items():
            if name != "kind":
                assert f"| `{name}` |" in pages["configuration.md"], (schema, name)
                assert meaning_of(name, field), f"{schema.__name__}.{name} has no description"


def test_every_variable_that_the_code_reads_is_listed(pages: dict[str, str]) -> None:
    tops = ("shortlist", "models", "services", "monitoring", "flows", "cli", "benchmarks")
    read = {
        name
        for top in tops
        for path in (ROOT / top).rglob("*.py")
        for name in re.findall(r"\bSHORTLIST_[A-Z_]+[A-Z]\b", path.read_text())
    }
    listed = {f"SHORTLIST_{name.upper()}" for name in Settings.model_fields} | set(ENVIRONMENT)
    assert read <= listed
    assert all(f"| `{name}` |" in pages["settings.md"] for name in listed)


def test_every_command_is_listed_with_its_options(pages: dict[str, str]) -> None:
    page = pages["commands.md"]
    for name, command in commands():
        section = page.partition(f"\n### shortlist {name}\n")[2].partition("\n### ")[0]
        assert command.params, name
        for parameter in command.params:
            assert parameter.help, f"shortlist {name}: {parameter.name} has no help"
            assert parameter.param_type_name == "argument" or f"`{parameter.opts[0]}`" in section
    assert {"releases list", "init"} <= {name for name, _ in commands()}
    assert all(f"| `{name}` | {meaning} |" in page for name, meaning in benchmarks())


def test_every_metric_figure_and_feature_is_listed(pages: dict[str, str]) -> None:
    judged = re.findall(r'f"(\w+)@\{', (ROOT / "flows/evaluation/judge.py").read_text())
    assert {f"{name}@k" for name in judged} == set(QUALITY)
    metrics = [name for name, *_ in service_metrics()]
    assert "shortlist_request_seconds" in metrics
    assert "shortlist_events_total" in metrics
    assert all(f"| `{name}` |" in pages["metrics.md"] for name in metrics)
    figures = (*MEASURES, *WHOLE_MEASURES, *OPERATION)
    assert all(f"| `{name}` |" in pages["figures.md"] for name in figures)
    features = {one["name"] for group in described()["groups"] for one in group["features"]}
    assert {*USER_FEATURES, *CONTEXT_FEATURES, *ITEM_FEATURES} <= features
    assert all(f"| `{name}` |" in pages["features.md"] for name in features | set(MEANINGS))


def test_docstrings_become_markdown() -> None:
    assert (
        text("a <b>\nof `<home>` (docs/data.md)") == "a &lt;b&gt; of `<home>` ([data](../data.md))"
    )
    assert text("docs/reference/figures.md") == "[figures](figures.md)"
