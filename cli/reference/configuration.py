"""The pages of all keys of the TOML files, and of the settings of a deployment."""

import inspect
import typing
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cli.reference.markdown import code, first_paragraph, table, text
from cli.reference.terms import TERMS
from flows.releases.retention import RetentionConfig
from flows.runtime.configuration import RunConfig
from monitoring.board.config import GuardrailFile
from shortlist.config import Settings
from shortlist.experiment import ExperimentConfig
from shortlist.http.rule_config import RuleSet
from shortlist.releases.gates import GatesConfig

FILES: tuple[tuple[str, str, type[BaseModel]], ...] = (
    (
        "A run's TOML",
        "`shortlist init` writes the keys that your data needs ([data](../data.md)); all others"
        " have defaults. Hyperparameters are those of the sources and rankers with the same"
        " `kind`.",
        RunConfig,
    ),
    ("Gates", "`configs/gates.toml`, or the file that a run names as `gates`.", GatesConfig),
    (
        "Guardrails",
        "`configs/guardrails.toml`, or the file that a run names as `monitor.guardrails`"
        " ([monitoring](../monitoring.md)).",
        GuardrailFile,
    ),
    ("An experiment", "The file of `shortlist experiment start`.", ExperimentConfig),
    ("Business rules", "`<home>/rules.toml` ([rules](../rules.md)).", RuleSet),
    (
        "Retention",
        "`configs/retention.toml`, or the file of `shortlist releases gc --retention`.",
        RetentionConfig,
    ),
)
"""Title, introduction and config class of each TOML file but shortlist.toml."""
ENVIRONMENT = {
    "SHORTLIST_WORKERS": ("2", "Processes of `serve`; each holds the release's models."),
    "SHORTLIST_RELEASE": (
        "the promoted one",
        "Folder of a release that a service serves whatever is promoted.",
    ),
    "SHORTLIST_API_KEYS": ("none", "Keys of the service's clients ([security](../security.md))."),
    "SHORTLIST_API_KEY": ("none", "The key that `shortlist.http.client` sends."),
    "SHORTLIST_DATA": ("none", "Folder with public data sets, for benchmarks."),
    "SHORTLIST_DEBUG": ("none", "If set, commands show the traceback of every error."),
}
"""Variables that no TOML file can set: name -> (default, meaning)."""


def configuration_page() -> str:
    """Return the content of docs/reference/configuration.md."""
    page = "# All keys of TOML files\n\nMade from the classes by `python -m cli.reference`.\n"
    for title, introduction, schema in FILES:
        page += f"\n## {title}\n{introduction}\n"
        page += "".join(_section(path, config) for path, config in sections(schema, ""))
    return page


def settings_page() -> str:
    """Return the content of docs/reference/settings.md."""
    rows = [
        [f"`SHORTLIST_{name.upper()}`", _default(field), meaning_of(name, field)]
        for name, field in Settings.model_fields.items()
    ]
    rows += [[f"`{name}`", default, meaning] for name, (default, meaning) in ENVIRONMENT.items()]
    inner = "".join(_section(path, config) for path, config in sections(Settings, "") if path)
    return f"""# Settings of a deployment

Made from the class `Settings` by `python -m cli.reference`. Set these variables in the environment
of all commands and of the service, for example:

```sh
SHORTLIST_HOME=/srv/shortlist SHORTLIST_WORKERS=4 .venv/bin/shortlist serve
```

All but {", ".join(f"`{name}`" for name in ENVIRONMENT)} can also be set in `shortlist.toml`,
without the prefix and in small letters (`home`, `online_store`). Sections such as
`[explore]` are JSON in a variable.

{table(["variable", "default", "meaning"], rows)}{inner}"""


def sections(
    config: type[BaseModel], path: str, done: set[type] | None = None
) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield (TOML path, config class) for `config` and all config classes in its fields, each once.

    Args:
        path: TOML path of `config`, empty at the top.
        done: classes that were already yielded.
    """
    done = set() if done is None else done
    if config in done:
        return
    done.add(config)
    yield path, config
    for name, field in config.model_fields.items():
        for inner in _classes(field.annotation):
            yield from sections(inner, f"{path}.{name}".strip("."), done)


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    for part in typing.get_args(annotation):
        yield from _classes(part)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation


def _section(path: str, config: type[BaseModel]) -> str:
    lines = ["\n"]
    if path:
        kind = config.model_fields.get("kind")
        title = f"`[{path}]`"
        if kind is not None and isinstance(kind.default, str):
            title += f', `kind = "{kind.default}"`'
        lines.append(f"### {title}\n{first_paragraph(inspect.cleandoc(config.__doc__ or ''))}\n\n")
    rows = [
        [f"`{name}`", _default(field), meaning_of(name, field)]
        for name, field in config.model_fields.items()
        if name != "kind"
    ]
    if not rows:
        return "".join(lines) + "It has no keys but `kind`.\n"
    return "".join(lines) + table(["key", "default", "meaning"], rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see its keys"
    if value is None or value is PydanticUndefined:
        return "none"
    return code(value)


def meaning_of(name: str, field: FieldInfo) -> str:
    """Return a field's description and its possible values, if it has a fixed set of them.

    A field without a description has that of its config class, or that of TERMS.
    """
    meaning = text(field.description or TERMS.get(name))
    if not meaning:
        inner = {first_paragraph(one.__doc__) for one in _classes(field.annotation)}
        meaning = inner.pop() if len(inner) == 1 else ""
    values = [str(value) for value in _values(field.annotation)]
    if len(values) > 1 and any(value not in meaning for value in values):
        meaning = f"{meaning} One of {', '.join(code(value) for value in values)}.".strip()
    return meaning


def _values(annotation: Any) -> Iterator[Any]:
    """Yield the values of all `Literal`s in an annotation."""
    if typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
        return
    for part in typing.get_args(annotation):
        yield from _values(part)
