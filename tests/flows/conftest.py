"""A home in which batches of JSON Lines are staged and validated, a small lake, and releases."""

import atexit
import copy
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app
from flows.validate import ValidateConfig, validate_batch
from shortlist.config import Settings
from shortlist.contracts import INTERACTIONS, ITEMS, USERS
from shortlist.datasets import DataConfig, stage_source
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

DAY = 86_400_000_000
HOUR = 3_600_000_000
START = 10_000 * DAY  # microseconds
LAKE_START = 1_700_006_400_000_000  # microseconds, first event of `write_lake`
BASELINES = ("popularity", "recent_popularity", "item_knn", "ease", "ials")
ROOT_TOML = """
name = "tiny"
[data]
source = "movielens-100k"
clock = "replay"
[train]
sources = [{ kind = "popularity" }]
rankers = [{ kind = "lambdamart" }]
"""
"""The TOML file of a run that is deployed but not executed."""
GENEROUS = ValidateConfig(failure_budget=0.5, unknown_items="quarantine")


def event(i: int, **changes: Any) -> dict[str, Any]:
    return {
        "event_id": f"e{i}",
        "user_id": f"u{i % 4}",
        "item_id": f"i{i % 5}",
        "event_type": "rating",
        "event_timestamp": START + i * DAY,
        "value": float(1 + i % 5),
        "operation": "insert",
    } | changes


def item(i: int, **changes: Any) -> dict[str, Any]:
    return {"item_id": f"i{i}", "title": f"T{i}", "price": 1.5} | changes


GOOD_EVENTS = [event(i) for i in range(20)]
GOOD_ITEMS = [item(i) for i in range(5)]
GOOD_USERS = [{"user_id": f"u{i}"} for i in range(4)]


class House:
    """A home, with methods that stage and validate batches of JSON Lines in it."""

    def __init__(self, home: Path):
        self.settings = Settings(home=home / "home")
        self.lake = Lake(self.settings.lake)
        self.folder = home
        self.batch_id = ""
        self.complete = False
        """Whether a batch has the whole catalogue, so that all other items are withdrawn."""

    def stage(
        self,
        events: Sequence[dict[str, Any] | str] = GOOD_EVENTS,
        items: Sequence[dict[str, Any] | str] = GOOD_ITEMS,
        users: Sequence[dict[str, Any] | str] = GOOD_USERS,
        between: tuple[int, int] | None = None,
        **data: Any,
    ) -> str:
        """Stage rows and return the batch id; a row that is a string is written unchanged.

        Args:
            between: as for `stage_source`.
        """
        files = {}
        for name, rows in (("interactions", events), ("items", items), ("users", users)):
            if not rows:
                continue
            path = self.folder / f"{name}.jsonl"
            lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
            path.write_text("".join(f"{line}\n" for line in lines))
            columns = {key: key for row in rows if isinstance(row, dict) for key in row}
            files[name] = {"path": path, "columns": columns, "timestamp_unit": "us"}
            if name == "items":
                files[name]["complete"] = self.complete
        config = DataConfig.model_validate({"source": "files", "files": files} | data)
        now = START + 1_000 * DAY
        self.batch_id = stage_source(config, self.settings, now=now, between=between).batch_id
        return self.batch_id

    def validate(self, *rows: Any, config: ValidateConfig = GENEROUS, **data: Any) -> Any:
        if not rows and not data and config is GENEROUS and not self.settings.home.exists():
            return self._copy_of_first_validation()
        return validate_batch(self.settings, self.stage(*rows, **data), config, clock="replay")

    def _copy_of_first_validation(self) -> Any:
        """Become a copy of a house whose good rows were validated; return the result.

        The first validation of a home creates its context of Great Expectations, which takes
        seconds. Many tests start with it.
        """
        first, result = _first_validation()
        shutil.copytree(first.folder, self.folder, symlinks=True, dirs_exist_ok=True)
        self.batch_id = first.batch_id
        return copy.deepcopy(result)

    def quarantined(self, name: str) -> list[dict[str, Any]]:
        path = self.settings.quarantine / self.batch_id / f"{name}.parquet"
        return pq.read_table(path).to_pylist()

    def reasons(self, name: str) -> dict[str, str]:
        key = "event_id" if name == "interactions" else name[:-1] + "_id"
        return {row[key]: row["expectation"] for row in self.quarantined(name)}

    def counted(self, suite: str) -> dict[str, int]:
        """Read the newest stored result of a suite: {rule or description: unexpected rows}."""
        stored = self.settings.great_expectations / "gx" / "uncommitted" / "validations" / suite
        newest = max(stored.rglob("*.json"), key=lambda path: path.stat().st_mtime)
        found = {}
        for one in json.loads(newest.read_text())["results"]:
            config, result = one["expectation_config"], one["result"]
            mark = config["meta"].get("shortlist", {"rule": config.get("description")})
            rows = result.get("unexpected_count", result.get("observed_value"))
            found[mark["rule"]] = rows
        return found

    def files(self) -> dict[Path, bytes]:
        current = self.lake.root / "current"
        found = current.resolve().rglob("*") if current.is_symlink() else []
        return {path: path.read_bytes() for path in found if path.is_file()}


@cache
def _first_validation() -> tuple[House, Any]:
    """Return a house whose good rows were validated, and the result."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    first = House(folder)
    return first, validate_batch(first.settings, first.stage(), GENEROUS, clock="replay")


@pytest.fixture(scope="module")
def trainable_home(served_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the served home, without its runs and releases, in which a test may train."""
    target = tmp_path_factory.mktemp("home")
    for name in ("lake", "features", "feast", "packs"):
        shutil.copytree(served_home / name, target / name, symlinks=True)
    return target


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def _table(rows: list[dict], schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        plain = pa.int64() if pa.types.is_timestamp(field.type) else field.type
        columns.append(pa.array([row.get(field.name) for row in rows], plain).cast(field.type))
    return pa.table(columns, schema=schema)


def write_lake(root: Path) -> None:
    """Write a lake with thirty ratings, one per hour, of six items by three users."""
    events = [
        {
            "event_id": f"e{n}",
            "user_id": f"u{n % 3}",
            "item_id": f"i{n % 6}",
            "event_type": "rating",
            "event_timestamp": LAKE_START + n * HOUR,
            "event_order": n,
            "ingested_at": 0,
            "value": 3.0,
            "source": "test",
        }
        for n in range(30)
    ]
    items = [{"item_id": f"i{n}", "categories": ["drama"], "available": True} for n in range(6)]
    users = [{"user_id": f"u{n}"} for n in range(3)]
    Lake(root).publish(
        "first", _table(events, INTERACTIONS), _table(items, ITEMS), _table(users, USERS)
    )


def opened(house: House) -> Any:
    """Open the Great Expectations context as docs/validation.md describes."""
    import great_expectations as gx

    import flows.validation.source  # noqa: F401

    return gx.get_context(mode="file", project_root_dir=house.settings.great_expectations)


def add(house: House, suite: str, kind: str, **arguments: Any) -> None:
    """Add an expectation to a suite as a user would, with the API of Great Expectations."""
    from great_expectations import expectations

    made = getattr(expectations, kind)(**arguments)
    opened(house).suites.get(suite).add_expectation(made)


def about(*, mean: float = 0.05, compared_with: str | None = None, coverage: float = 0.5) -> dict:
    """Return the evaluation in a release's manifest; with the defaults it passes all gates.

    Args:
        mean: nDCG@10 of the chain minus that of its opponent.
        compared_with: release id of the champion; None makes recent popularity the opponent.
        coverage: coverage@10 of the chain.
    """
    figure = {"mean": mean, "low": mean - 0.002, "high": mean + 0.002, "users": 100}
    opponent = "champion" if compared_with else "recent_popularity"
    return {
        "metrics": {"chain": {"ndcg@10": {"mean": 0.3}, "coverage@10": {"mean": coverage}}},
        "chain_ahead": {opponent: {"ndcg@10": figure}},
        "champion": {
            "release_id": compared_with,
            "status": "compared" if compared_with else "none",
            "reason": "",
        },
        "sources": {"two_tower": "two_tower"},
        "source_figures": {"two_tower": {"index": "exact", "index_recall@100": 0.99}},
        "refit": {
            "overlap@10": 0.5,
            "coverage@10": 0.5,
            "backtest_coverage@10": 0.5,
            "scores": {"two_tower": {"mean_shift": 0.0, "std_ratio": 1.0}},
            "index_recall@100": {"two_tower": 0.99},
        },
    }


def publish(store: ReleaseStore, content: dict[str, Any], payload: str = "weights") -> str:
    """Publish a release with one file; return its id."""
    with store.publishing(content) as (folder, content):
        (folder / "model.bin").write_text(payload)
    return content["release_id"]


def answer(*arguments: str, home: Path) -> dict:
    """Run a command in this process and return its JSON output.

    That is faster than a new process, which would import everything again. Fails if the command
    fails.
    """
    done = CliRunner().invoke(app, [*arguments, "--json"], env={"SHORTLIST_HOME": str(home)})
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)
