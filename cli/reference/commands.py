"""The page of all commands with their arguments and options, from the command line's own parser."""

import ast
import inspect
from collections.abc import Iterator
from typing import Any

import typer

from cli.main import PANELS, app
from cli.reference.markdown import ROOT, code, first_paragraph, table, text


def commands_page() -> str:
    """Return the content of docs/reference/commands.md."""
    page = (
        "# All commands\n\nMade from the command line's parser by `python -m cli.reference`."
        " `shortlist COMMAND --help` prints the same. Commands with `--json` print one JSON"
        " object, for programs.\n"
    )
    found = dict(commands())
    for panel, names in PANELS.items():
        page += f"\n## {panel}\n"
        for path, command in found.items():
            if path.split()[0] in names:
                page += _section(path, command)
    rows = [[f"`{name}`", meaning] for name, meaning in benchmarks()]
    page += "\n## Benchmarks\n`shortlist bench NAME --help` prints the options of one.\n\n"
    return page + table(["name", "what it measures"], rows)


def commands() -> Iterator[tuple[str, Any]]:
    """Yield (name, command) of each command, such as `releases list`, in the order of PANELS."""
    top = typer.main.get_command(app)
    for name in (name for names in PANELS.values() for name in names):
        yield from _leaves(name, top.commands[name])


def benchmarks() -> Iterator[tuple[str, str]]:
    """Yield name and purpose of each benchmark, without importing it."""
    for path in sorted((ROOT / "benchmarks").glob("[!_]*.py")):
        purpose = first_paragraph(ast.get_docstring(ast.parse(path.read_text())))
        yield path.stem, purpose.rpartition("`: ")[2]


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for part, child in inner.items():
        yield from _leaves(f"{name} {part}", child)


def _section(name: str, command: Any) -> str:
    usage = " ".join(
        ["shortlist", name, *(_argument(one) for one in command.params if _is_argument(one))]
    )
    options = " [OPTIONS]" if any(not _is_argument(one) for one in command.params) else ""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    section = f"\n### shortlist {name}\n```text\n{usage}{options}\n```\n"
    section += "\n\n".join(text(one) for one in paragraphs) + "\n"
    rows = [[_names(one), _default(one), text(one.help)] for one in command.params]
    if not rows:
        return section
    return f"{section}\n{table(['argument or option', 'default', 'meaning'], rows)}"


def _is_argument(parameter: Any) -> bool:
    return parameter.param_type_name == "argument"


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    name += "..." if parameter.nargs == -1 else ""
    return name if parameter.required else f"[{name}]"


def _names(parameter: Any) -> str:
    if _is_argument(parameter):
        return code(_argument(parameter))
    return ", ".join(code(name) for name in (*parameter.opts, *parameter.secondary_opts))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    if parameter.default in (None, False, (), []):
        return "none" if parameter.default is not False else "off"
    if isinstance(parameter.default, list | tuple):
        return ", ".join(code(value) for value in parameter.default)
    return code(getattr(parameter.default, "value", parameter.default))
