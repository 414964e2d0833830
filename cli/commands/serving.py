"""Commands that recommend: over HTTP, or in the terminal without a server."""

import os
import sys
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
    from shortlist.release import ReleaseStore

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
    user_id: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    k: NumberOption = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recommend items to a user, with the source and the reason of each. Needs no server."""
    from cli.local import local_recommender, now_of
    from shortlist.api import RecommendRequest

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


@app.command()
def similar(
    item_id: Annotated[str, typer.Argument(metavar="ITEM", help="The item's id.")],
    k: NumberOption = 10,
    release: ReleaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List items that are similar to an item. Needs no server."""
    from cli.local import local_recommender, now_of
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
    from cli.local import local_recommender, now_of
    from shortlist.api import SearchRequest

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
