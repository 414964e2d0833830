"""Commands that recommend: over HTTP, or in the terminal without a server."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cli import show
from cli.commands.options import JsonOption, ReleaseOption

if TYPE_CHECKING:
    from pydantic import BaseModel

BodyT = TypeVar("BodyT", bound="BaseModel")
app = typer.Typer()


NumberOption = Annotated[int, typer.Option("-k", min=1, max=500, help="Number of items.")]


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the API.")] = 3000,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve the promoted release over HTTP until interrupted.

    Clients of other machines need an API key of SHORTLIST_API_KEYS (docs/security.md).
    """
    if host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get("SHORTLIST_API_KEYS"):
        raise typer.BadParameter(
            f"--host {host} is reachable from other machines: set SHORTLIST_API_KEYS first, such as"
            " read+events:KEY,admin:KEY with keys of `openssl rand -hex 24`"
        )
    from shortlist.config import Settings
    from shortlist.releases.release import ReleaseStore

    release = ReleaseStore(Settings().releases).open()
    site = f"http://{host}:{port}"
    typer.echo(f"release {release.release_id} on {site} (with its documentation)", err=True)
    typer.echo(f"console: {site}/console (once the service answers)", err=True)
    command = [sys.executable, "-m", "bentoml", "serve", "services.service:RecommenderService"]
    os.execv(sys.executable, [*command, "--port", str(port), "--host", host])


def parsed(body: "type[BodyT]", **fields: Any) -> "BodyT":
    """Return a request body. Raises BadParameter that says what is wrong in the fields."""
    from pydantic import ValidationError

    from shortlist.config import describe

    try:
        return body(**fields)
    except ValidationError as error:
        raise typer.BadParameter(describe(error.errors()[0])) from None


@app.command()
def recommend(
    user_id: Annotated[
        str | None, typer.Argument(metavar="USER", help="The user's id; leave it out with --all.")
    ] = None,
    k: NumberOption = 10,
    release: ReleaseOption = None,
    everybody: Annotated[
        bool, typer.Option("--all", help="Write the lists of all users to the file --out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="With --all: the file to write, .parquet or .csv.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="With --all: only the users of this file, one id per line.")
    ] = None,
    active_days: Annotated[
        int | None,
        typer.Option(min=1, help="With --all: only users with an event in so many days."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="With --all: processes; each holds the release's models.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a user, or to all users with --all. Needs no server.

    With --all, the lists are written to a file: one row per item, with user, rank, score, source
    and reason.
    """
    if everybody == (user_id is not None):
        raise typer.BadParameter("want either USER, or --all --out FILE")
    if everybody:
        if out is None:
            raise typer.BadParameter("--all: want --out FILE, which ends with .parquet or .csv")
        if users is not None and active_days is not None:
            raise typer.BadParameter("want either --users or --active-days")
        from flows.recommend_all import recommend_all_flow

        with show.only_json(as_json):
            content = recommend_all_flow(out, k, users, active_days, release, workers)
        show.result(content, as_json=as_json, table=show_batch)
        return
    from models.recommend.local import local_recommender, now_of
    from shortlist.http.api import RecommendRequest

    request = parsed(RecommendRequest, user_id=user_id, k=k)
    recommender = local_recommender(release)
    slate = recommender.recommend(request, at=now_of(recommender))
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


def show_batch(content: dict[str, Any]) -> None:
    """Print the outcome of `recommend --all`."""
    text = f"{content['rows']:,} items for {content['users']:,} users in {content['out']}"
    text += f" (release {content['release_id']}, {content['seconds']:g} s)"
    if content["skipped_stages"]:
        text += f"; {content['skipped_stages']:,} lists lack a stage that failed"
    if content["forgotten"]:
        text += f"; {content['forgotten']:,} forgotten users are left out"
    typer.echo(text)


@app.command()
def similar(
    item_id: Annotated[str, typer.Argument(metavar="ITEM", help="The item's id.")],
    k: NumberOption = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List items that are similar to an item. Needs no server."""
    from models.recommend.local import local_recommender, now_of
    from shortlist.http.api import SimilarRequest

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
def search(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The text to search for.")],
    user_id: Annotated[
        str | None, typer.Option("--user", metavar="USER", help="order the items for this user")
    ] = None,
    k: NumberOption = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find items by a text, by its words and by its meaning. Needs no server."""
    from models.recommend.local import local_recommender, now_of
    from shortlist.http.api import SearchRequest

    request = parsed(SearchRequest, query=query, user_id=user_id, k=k)
    recommender = local_recommender(release)
    found = recommender.search(request, at=now_of(recommender))
    show.result(
        {
            "query": query,
            "user_id": user_id,
            "user_known": found.user_known,
            "release_id": recommender.release_id,
            "items": [item.model_dump() for item in found.items],
        },
        as_json=as_json,
        table=show.slate,
    )
