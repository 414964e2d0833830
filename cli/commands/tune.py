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
    from flows.tune import tunable, tune_flow
    from flows.tuning.space import with_values
    from flows.tuning.study import TuningError
    from shortlist.config import Settings

    settings = Settings()
    run_config = load_run_config(config)
    try:
        given = tunable(run_config, kind)
        if run is None:
            opened = Run.start(settings, run_config)
            opened.tuning.mkdir()
        else:
            opened = Run.open(settings, run, of=run_config.name)
            if tunable(opened.config, kind) != given:
                raise TuningError(
                    f"--run {run}: '{kind}' has other settings there than in {config}; leave --run"
                    " out to start a new study"
                )
            opened.freeze(settings)
        with show.only_json(as_json):
            result = tune_flow(opened.run_id, kind, minutes)
    except TuningError as error:
        raise typer.BadParameter(str(error)) from None
    # The weights of the ranker `value` are in `[value]`, not in its line.
    own = given.model_dump(mode="json", exclude_unset=True, exclude={"weights"})
    line = as_toml({"kind": kind} | with_values(own, result["changes"]))
    result |= {"run_id": opened.run_id, "toml": line}
    show.result(result, as_json=as_json, table=show_study)


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
