"""`shortlist tune`: search better hyperparameters on the validation window."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.table import Table

from cli import show
from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption
from cli.show import terminal

app = typer.Typer()


@app.command()
def tune(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="A source or ranker of `[train]`.")],
    config: ConfigOption = DEFAULT_CONFIG,
    minutes: Annotated[float, typer.Option(min=0, help="Time budget of this call.")] = 30,
    run: Annotated[
        str | None, typer.Option(help="Id of a run, to continue its study; default: a new run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search better hyperparameters of a source or ranker on the validation window.

    Ends with a comparison of the best and the current values over three seeds, and the line for the
    TOML file if the gain is beyond chance. The test window isn't read. The study is stored in the
    run's folder (Optuna, SQLite), so that `--run` continues it.
    """
    from flows.runtime.configuration import load_run_config
    from flows.runtime.runs import Run
    from flows.tune import FOLDER, tune_flow
    from flows.tuning.study import TuningError
    from shortlist.config import Settings

    settings = Settings()
    run_config = load_run_config(config)
    known = [*run_config.train.sources, *run_config.train.rankers]
    if kind not in [one.kind for one in known]:
        raise typer.BadParameter(
            f"'{kind}' is no source or ranker of {config}, want one of"
            f" {', '.join(one.kind for one in known)}"
        )
    (given,) = [one for one in known if one.kind == kind]
    if run is None:
        opened = Run.start(settings, run_config)
        (opened.path / FOLDER).mkdir()
    else:
        opened = Run.open(settings, run, of=run_config.name)
        if given not in (*opened.config.train.sources, *opened.config.train.rankers):
            raise typer.BadParameter(
                f"--run {run}: '{kind}' has other settings there than in {config}; leave --run out"
                " to start a new study"
            )
        opened.freeze(settings)
    try:
        with show.only_json(as_json):
            result = tune_flow(opened.run_id, kind, minutes)
    except TuningError as error:
        raise typer.BadParameter(str(error)) from None
    line = as_toml(
        {"kind": kind}
        | nested(given.model_dump(mode="json", exclude_unset=True), result["changes"])
    )
    result |= {"run_id": opened.run_id, "toml": line}
    show.result(result, as_json=as_json, table=show_study)


def nested(given: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `given` with other values; dots in the keys of `changes` separate levels."""
    out = json.loads(json.dumps(given))
    for key, value in changes.items():
        *path, last = key.split(".")
        part = out
        for name in path:
            part = part.setdefault(name, {})
        part[last] = value
    return out


def as_toml(value: Any) -> str:
    """Return a value as inline TOML; keys with None are left out, because TOML has no null."""
    if isinstance(value, Mapping):
        parts = [f"{name} = {as_toml(part)}" for name, part in value.items() if part is not None]
        return "{ " + ", ".join(parts) + " }" if parts else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    return json.dumps(value)  # strings, numbers and booleans are written alike


def show_study(content: dict[str, Any]) -> None:
    """Print the outcome of a study."""
    table = Table(title=f"{content['kind']}: {content['trials']} trials", title_justify="left")
    for column in ("", "nDCG@10 on validation, by seed", "mean"):
        table.add_column(column)
    for name in ("current", "best"):
        figures = content[name]
        seeds = ", ".join(f"{value:.4f}" for value in figures["ndcg@10"])
        table.add_row(name, seeds, f"{figures['mean']:.4f}")
    terminal().print(table)
    gain = content["gain"]
    interval = f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
    if content["better"]:
        terminal().print(f"gain {interval}; put this into `[train]`:")
        terminal().print(content["toml"], soft_wrap=True, markup=False, highlight=False)
    else:
        terminal().print(f"gain {interval}: no gain beyond chance; keep the current values")
    terminal().print(f"continue with `shortlist tune {content['kind']} --run {content['run_id']}`")
