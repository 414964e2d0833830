"""Generates docs/configuration.md, a list of all keys of a run's TOML, from the config classes.

To update the page: `python -m cli.configuration_reference > docs/configuration.md`. A test checks
that it is up to date.
"""

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from flows.runtime.configuration import RunConfig
from monitoring.board.config import GuardrailFile
from shortlist.experiment import ExperimentConfig

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# All keys of a run's TOML

Made from the config classes by `python -m cli.configuration_reference`. `shortlist init` writes the
keys that your data needs ([data.md](data.md)); all others have defaults. Hyperparameters are those
of the sources and rankers with the same `kind`.
"""


OTHER_FILES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("configs/guardrails.toml", GuardrailFile),
    ("The file of `shortlist experiment start`", ExperimentConfig),
)
"""Title and config class of further TOML files; their sections follow those of a run."""


def reference() -> str:
    """Return the content of docs/configuration.md."""
    text = HEAD + "".join(_section(path, config) for path, config in sections(RunConfig, ""))
    for title, schema in OTHER_FILES:
        text += f"\n# {title}\n"
        text += "".join(_section(path, config) for path, config in sections(schema, ""))
    return text


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
    kind = config.model_fields.get("kind")
    title = f"`[{path}]`" if path else "At the top"
    if kind is not None and isinstance(kind.default, str):
        title += f', `kind = "{kind.default}"`'
    lines = [f"\n## {title}\n{inspect.cleandoc(config.__doc__ or '').split(chr(10) * 2)[0]}\n"]
    lines += ["| key | default | meaning |", "|---|---|---|"]
    for name, field in config.model_fields.items():
        lines.append(f"| `{name}` | {_default(field)} | {_meaning(field)} |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "see its keys"
    if value is None or value is PydanticUndefined:
        return "none"
    if isinstance(value, Path) and value.is_relative_to(ROOT):
        value = value.relative_to(ROOT)
    text = str(value).replace("|", "\\|").replace("\n", " ")
    return f"`{text}`" if text else '`""`'


def _meaning(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split())
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")
