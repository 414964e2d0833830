"""Snippets of the documentation are valid: commands, TOML, JSON, Python, and bodies of requests."""

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from cli.reference.commands import commands
from flows.releases.retention import RetentionConfig
from flows.runtime.configuration import RunConfig
from monitoring.board.config import GuardrailFile
from shortlist.config import Settings
from shortlist.experiment import ExperimentConfig
from shortlist.http.api import (
    EventsRequest,
    ItemsRequest,
    RecommendRequest,
    SearchRequest,
    SimilarRequest,
)
from shortlist.http.rule_config import RuleSet
from shortlist.releases.gates import GatesConfig

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = {"docs/decisions.md", "docs/experiments"}
"""What was true at its date; commands in it may be gone."""
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(shortlist [^`]+|make [a-z]+|bench [a-z_]+)`")
CURL = re.compile(r"curl -s (?:http://)?[\w.:]+(/\w+)[^\n]*?-d '(\{.*?\})'", re.DOTALL)
END = {"&&", "||", "|", ";", ">", "2>", "done"}
COMMANDS = dict(commands())
BODIES: dict[str, type[BaseModel]] = {
    "/recommend": RecommendRequest,
    "/similar": SimilarRequest,
    "/search": SearchRequest,
    "/events": EventsRequest,
    "/items": ItemsRequest,
}
RUN = {
    "name": "a-run",
    "data": {"source": "movielens-100k"},
    "train": {"sources": [{"kind": "popularity"}], "rankers": [{"kind": "lambdamart"}]},
}
"""What a part of a run's TOML is merged into."""
WHOLE = (GuardrailFile, ExperimentConfig, RuleSet, Settings, GatesConfig, RetentionConfig)


def blocks(*languages: str) -> Iterator[Any]:
    """Yield (page, content) of the fenced blocks in one of the languages."""
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for number, (language, content) in enumerate(BLOCK.findall(page.read_text())):
            if language in languages:
                yield pytest.param(content, id=f"{name}-{number}")


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words after `shortlist` or `make` of each command in a shell snippet."""
    for line in text.replace("\\\n", " ").splitlines():
        if not re.search(r"\b(shortlist|make) ", line):
            continue
        words = shlex.split(line, comments=True)
        for start, word in enumerate(words):
            if word.rpartition("/")[2] in ("shortlist", "make"):
                rest = words[start:]
                end = next((i for i, one in enumerate(rest) if one in END), len(rest))
                yield [word.rpartition("/")[2], *(one.rstrip(";") for one in rest[1:end])]


def problem(words: list[str], *, whole: bool) -> str | None:
    """Return what is wrong with a command, or None.

    Args:
        words: `shortlist` or `make`, and what follows.
        whole: whether required arguments must be there; a mention in a sentence may omit them.
    """
    program, *words = words
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if words[0] in targets else f"make has no target {words[0]}"
    if not words or words[0].isupper() or words[0] in ("...", "--help"):
        return None
    if words[0] == "bench":
        return bench_problem(words[1:])
    length = 1 if words[0] in COMMANDS else 2
    name = " ".join(words[:length])
    if name not in COMMANDS:
        group = any(one.startswith(f"{words[0]} ") for one in COMMANDS)
        return None if group and len(words) == 1 else f"shortlist has no command {name}"
    return argument_problem(COMMANDS[name].params, words[length:], whole=whole)


def argument_problem(parameters: list[Any], words: list[str], *, whole: bool) -> str | None:
    """Return what is wrong with the arguments and options of a command, or None."""
    options = {name: one for one in parameters for name in (*one.opts, *one.secondary_opts)}
    arguments = [one for one in parameters if one.param_type_name == "argument"]
    given, rest = 0, iter(words)
    for word in rest:
        if word == "--help":
            return None
        if not word.startswith("-"):
            given += 1
        elif (name := word.partition("=")[0]) not in options:
            return f"it has no option {name}"
        elif not options[name].is_flag and "=" not in word:
            next(rest, None)
    if given > len(arguments) and not any(one.nargs == -1 for one in arguments):
        return f"{given} arguments, want at most {len(arguments)}"
    needed = sum(one.required for one in arguments)
    return f"{given} arguments, want {needed}" if whole and given < needed else None


def bench_problem(words: list[str]) -> str | None:
    """Return what is wrong with the name and the options of a benchmark, or None."""
    name = words[0] if words else "NAME"
    if name.isupper() or name == "all":
        return None
    if not (ROOT / "benchmarks" / f"{name}.py").exists():
        return f"there is no benchmark {name}"
    code = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    options = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
    unknown = [option for option in sorted(options) if f'"{option}"' not in code]
    return f"no benchmark has {unknown[0]}" if unknown else None


def merged(base: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with the keys of `part`, section by section."""
    out = dict(base)
    for key, value in part.items():
        inner = out.get(key)
        both = isinstance(value, dict) and isinstance(inner, dict)
        out[key] = merged(inner, value) if both else value
    return out


@pytest.mark.parametrize("snippet", blocks("sh", "bash", ""))
def test_commands_exist(snippet: str) -> None:
    for words in command_lines(snippet):
        assert problem(words, whole=True) is None, shlex.join(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_exist(page: Path) -> None:
    name = str(page.relative_to(ROOT))
    if any(name.startswith(one) for one in HISTORY):
        pytest.skip("history")
    for line in INLINE.findall(BLOCK.sub("", page.read_text())):
        words = shlex.split(line)
        words = ["shortlist", *words] if words[0] == "bench" else words
        assert problem(words, whole=False) is None, line


@pytest.mark.parametrize("snippet", blocks("toml"))
def test_toml_is_a_valid_part_of_a_configuration(snippet: str) -> None:
    content = tomllib.loads(snippet)
    found = []
    for schema, whole in [(RunConfig, merged(RUN, content)), *((one, content) for one in WHOLE)]:
        try:
            schema.model_validate(whole)
            return
        except ValidationError as error:
            found.append(str(error))
    raise AssertionError("\n\n".join(found))


@pytest.mark.parametrize("snippet", blocks("json"))
def test_json_is_json(snippet: str) -> None:
    rest = snippet.strip()
    while rest:
        rest = rest[json.JSONDecoder().raw_decode(rest)[1] :].strip()


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_is_python(snippet: str) -> None:
    ast.parse(snippet)


@pytest.mark.parametrize("snippet", blocks("sh", "bash"))
def test_bodies_of_requests_are_valid(snippet: str) -> None:
    for path, body in CURL.findall(snippet.replace("\\\n", " ")):
        content = json.loads(body)
        if "..." in content.get("cursor", ""):  # shortened
            del content["cursor"]
        BODIES[path].model_validate(content)


def test_faults_are_found() -> None:
    lines = list(
        command_lines("A=b .venv/bin/shortlist run my.toml --fast && make tea  # shortlist x")
    )
    assert [problem(line, whole=True) for line in lines] == [
        "it has no option --fast",
        "make has no target tea",
    ]
    assert problem(["shortlist", "releases", "burn"], whole=False) is not None
    assert problem(["shortlist", "similar"], whole=True) == "0 arguments, want 1"
    assert problem(["shortlist", "similar"], whole=False) is None
    assert problem(["shortlist", "bench", "serving", "--tea"], whole=False) is not None
    assert CURL.findall("curl -s localhost:3000/events -H 'a: b' -d '{\"k\": 1}'") == [
        ("/events", '{"k": 1}')
    ]
