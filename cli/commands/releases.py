"""Commands for releases (folders with all models of one run): roll back, list, compare, upgrade."""

from typing import Annotated

import typer

from cli import show
from cli.commands.options import DEFAULT_CONFIG, ConfigOption, JsonOption

app = typer.Typer()


@app.command()
def rollback(
    reason: Annotated[
        str, typer.Option(help="Why you roll back; the audit log stores it.")
    ] = "not said",
    as_json: JsonOption = False,
) -> None:
    """Promote the previous release again, and wait until all workers serve it."""
    from flows.rollback import roll_back
    from shortlist.config import Settings

    with show.only_json(as_json):
        result = roll_back(Settings(), reason=reason)
    show.result(result, as_json=as_json)


@app.command()
def releases(
    diff: Annotated[
        tuple[str, str] | None, typer.Option(help="Two release ids whose differences to show.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the releases, or show the differences between two of them."""
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
def upgrade(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Rebuild features, and if necessary the release, for this version of the code.

    They are built beside the current ones; then the deployment switches to them. The earlier
    version of the code may serve while they are built, but not during the switch.
    """
    from flows.runtime.configuration import load_run_config
    from flows.upgrade import upgrade as upgrade_home
    from shortlist.config import Settings

    run_config = load_run_config(config)
    with show.only_json(as_json):
        result = upgrade_home(Settings(), run_config)
    show.result(result, as_json=as_json)
    if not result["switched"]:
        raise typer.Exit(1)
