"""`shortlist`: the command line. Thin: every command calls a flow or the Recommender and shows the
result.

Heavy libraries are imported inside the command that needs them; `shortlist --help` pays for none.
"""

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flows import show

app = typer.Typer(
    name="shortlist",
    help="From a log and a catalogue to a recommender: trained, served and watched over.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

DEFAULT_CONFIG = Path("configs/movielens-100k.toml")
ConfigOption = Annotated[Path, typer.Argument(help="The run's TOML file.")]
RunOption = Annotated[str | None, typer.Option("--run", help="A run's id; default: the newest.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ReleaseOption = Annotated[
    str | None, typer.Option("--release", help="A release's id; default: the one that serves.")
]


@app.command("run")
def run_command(
    config: ConfigOption = DEFAULT_CONFIG,
    monitor: Annotated[
        bool, typer.Option(help="Replay the last window through the real service and report.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """The whole pipeline: from the raw source to a served, monitored release."""
    from flows.configuration import load_run_config
    from flows.run import run_flow

    run_config = load_run_config(config)
    with show.only_json(as_json):
        summary = run_flow(run_config, monitor=monitor)
    show.result(summary, as_json=as_json, table=show.summary)
    if not summary["promoted"]:
        raise typer.Exit(1)


@app.command()
def ingest(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the source, map it to the contracts, and lay the batch beside the lake."""
    from flows.configuration import load_run_config
    from flows.ingest import ingest_flow

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = ingest_flow(run_config.data)
    show.result(result, as_json=as_json)


@app.command()
def validate(
    batch_id: Annotated[str, typer.Argument(help="The batch that `shortlist ingest` named.")],
    config: Annotated[Path, typer.Option(help="The run's TOML file.")] = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Check a batch; bad rows go to quarantine, the rest into the lake."""
    from flows.configuration import load_run_config
    from flows.validate import validate_flow

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = validate_flow(batch_id, run_config.validation, clock=run_config.data.clock)
    show.result(result, as_json=as_json)


@app.command()
def featurize(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Start a run: cut the five windows, compute states, materialize them and write the feature
    pack.
    """
    from flows.configuration import load_run_config
    from flows.featurize import featurize_flow
    from flows.runs import Run, mark_windows
    from shortlist.config import Settings

    run_config = load_run_config(config)
    with show.only_json(as_json):
        settings = Settings()
        run = Run.start(settings, run_config)
        result = featurize_flow(run_config.data.target_events, mark_windows(settings, run))
    show.result(result | {"run_id": run.run_id}, as_json=as_json)


@app.command()
def train(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Train all sources and rankers of a run and let validation choose the chain."""
    from flows.runs import Run
    from flows.train import train_flow
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = train_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json)


@app.command()
def evaluate(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Judge a run's chain on the test window beside its sources, the baselines and the champion."""
    from flows.evaluate import evaluate_flow
    from flows.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = evaluate_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json, table=show.quality)


@app.command()
def package(
    run: RunOption = None,
    bento: Annotated[bool, typer.Option(help="Also build a Bento of the release.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Publish a run as a release; it does not serve before `shortlist promote`."""
    from flows.package import package_flow
    from flows.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = package_flow(Run.open(Settings(), run).run_id, bento=bento)
    show.result(result, as_json=as_json)


@app.command()
def promote(
    release_id: Annotated[
        str | None, typer.Argument(help="A release's id; default: the newest.")
    ] = None,
    gates: Annotated[Path, typer.Option(help="Gates as TOML.")] = Path("configs/gates.toml"),
    as_json: JsonOption = False,
) -> None:
    """Let a release serve if every gate holds; exits with 1 and changes nothing otherwise."""
    from flows.promote import promote_flow
    from shortlist.config import Settings
    from shortlist.release import ReleaseError, ReleaseStore

    settings = Settings()
    if release_id is None:
        ids = ReleaseStore(settings.releases).ids()
        if not ids:
            raise ReleaseError(f"{settings.releases}: no release there; run `shortlist run` first")
        release_id = ids[-1]
    with show.only_json(as_json):
        result = promote_flow(release_id, gates=str(gates))
    show.result(result, as_json=as_json, table=show.gates)
    if not result["promoted"]:
        raise typer.Exit(1)


@app.command()
def rollback(as_json: JsonOption = False) -> None:
    """Serve the release before the current one again."""
    from shortlist.config import Settings
    from shortlist.release import ReleaseStore

    release_id = ReleaseStore(Settings().releases).roll_back()
    show.result({"serving": release_id}, as_json=as_json)


@app.command()
def releases(
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="Two release ids: show what differs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the releases, or show what differs between two."""
    from shortlist.config import Settings
    from shortlist.release import ReleaseStore

    store = ReleaseStore(Settings().releases)
    if diff is not None:
        show.result(
            show.difference(store.open(diff[0]).about, store.open(diff[1]).about), as_json=as_json
        )
        return
    rows = [
        {
            "release_id": id_,
            "serving": id_ == store.current_id(),
            "dataset": (about := store.open(id_).about)["dataset"],
            "ndcg@10": about["metrics"]["chain"]["ndcg@10"]["mean"],
        }
        for id_ in store.ids()
    ]
    show.result({"releases": rows}, as_json=as_json, table=show.releases)


@app.command()
def monitor(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Report on the serving log: drift, quality, diversity, engagement, guardrail verdicts."""
    from flows.monitor import monitor_flow
    from flows.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = monitor_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json, table=show.guardrails)
    if result["verdict"] == "hold":
        raise typer.Exit(1)


@app.command()
def replay(run: RunOption = None, as_json: JsonOption = False) -> None:
    """Send a run's replay window to the real service, with what people then really did."""
    from flows.replay import replay_flow
    from flows.runs import Run
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = replay_flow(Run.open(Settings(), run).run_id)
    show.result(result, as_json=as_json)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 3000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
) -> None:
    """Serve the promoted release over HTTP until interrupted."""
    from shortlist.config import Settings
    from shortlist.release import ReleaseStore

    release = ReleaseStore(Settings().releases).open()
    typer.echo(
        f"release {release.release_id} on http://{host}:{port} (documentation there too)", err=True
    )
    command = [sys.executable, "-m", "bentoml", "serve", "services.service:RecommenderService"]
    os.execv(sys.executable, [*command, "--port", str(port), "--host", host])


@app.command()
def recommend(
    user_id: Annotated[str, typer.Argument(metavar="USER")],
    k: Annotated[int, typer.Option("-k", min=1, max=500)] = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend for a user, with the source of each item and why. Needs no server."""
    from flows.local import local_recommender, now_of
    from shortlist.api import RecommendRequest

    recommender = local_recommender(release)
    slate = recommender.recommend(RecommendRequest(user_id=user_id, k=k), at=now_of(recommender))
    show.result(
        {
            "user_id": user_id,
            "user_known": slate.user_known,
            "release_id": slate.release_id,
            "items": [item.model_dump() for item in slate.items],
        },
        as_json=as_json,
        table=show.slate,
    )


@app.command()
def similar(
    item_id: Annotated[str, typer.Argument(metavar="ITEM")],
    k: Annotated[int, typer.Option("-k", min=1, max=500)] = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Items like this one. Needs no server."""
    from flows.local import local_recommender, now_of
    from shortlist.api import SimilarRequest

    recommender = local_recommender(release)
    items = recommender.similar(SimilarRequest(item_id=item_id, k=k), at=now_of(recommender))
    show.result(
        {
            "item_id": item_id,
            "title": recommender.catalogue.titles[recommender.item_idx(item_id)],
            "release_id": recommender.release_id,
            "items": [item.model_dump() for item in items],
        },
        as_json=as_json,
        table=show.slate,
    )


@app.command()
def report(
    as_json: JsonOption = False,
    browser: Annotated[bool, typer.Option(help="Open it in a browser.")] = True,
) -> None:
    """Open the newest monitoring report."""
    from flows.monitor import latest_report

    found = latest_report()
    show.result(found, as_json=as_json)
    if browser and not as_json and sys.stdout.isatty():
        typer.launch(found["report"])


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """What is installed, reachable and fresh; exits with 1 if what serving needs is not."""
    from flows.doctor import examine

    checks = examine()
    show.result({"checks": checks}, as_json=as_json, table=show.checks)
    if any(check["status"] == "fail" for check in checks):
        raise typer.Exit(1)


@app.command()
def deploy(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Register the hourly, nightly and monitoring deployments with a Prefect server."""
    from flows.deploy import deploy_all

    with show.only_json(as_json):
        result = deploy_all(config)
    show.result(result, as_json=as_json)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A module of benchmarks/, e.g. `serving`.")],
) -> None:
    """Run one benchmark; everything after its name is its own."""
    import subprocess

    folder = Path(__file__).resolve().parents[1] / "benchmarks"
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    if name not in names:
        show.error(f"benchmark '{name}' does not exist, want one of {', '.join(names)}")
        raise typer.Exit(2)
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *context.args], check=False, cwd=folder.parent
    )
    raise typer.Exit(done.returncode)


def main() -> Any:
    """Run the command line; an error that a user can mend is one clear message, no traceback."""
    atexit.register(_silent_teardown)
    _quiet_environment()
    try:
        return app(standalone_mode=True)
    except Exception as error:
        if os.environ.get("SHORTLIST_DEBUG") or not show.is_for_users(error):
            raise
        show.error(str(error))
        sys.exit(2)


def _silent_teardown() -> None:
    """DuckDB prints a page about leaked instances while the interpreter is taken down; nobody can
    mend it. Registered first, this runs after every other exit handler.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _quiet_environment() -> None:
    """No telemetry, and Prefect's own files under SHORTLIST_HOME unless the user has chosen a
    place.
    """
    home = Path(os.environ.get("SHORTLIST_HOME", "var")).absolute()
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        home.mkdir(parents=True, exist_ok=True)  # Prefect makes its own folder, not its parents
    for name, value in {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "BENTOML_DO_NOT_TRACK": "True",
        "GX_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home / "prefect"),
        "BENTOML_HOME": str(home / "bentoml"),
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        # Its default of 20 s is too short for a first start on a busy laptop.
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    main()
