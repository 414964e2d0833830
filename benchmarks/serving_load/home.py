"""Builds a home with a promoted release of any catalogue size, for load tests.

A home is the folder of a deployment. Data and features are made by the usual steps (ingest,
validate, featurize). The models are trained for one epoch only, because the quality of a list
doesn't affect the time that it takes. The ranker has 300 trees of 31 leaves.
"""

import json
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from flows.featurize import featurize
from flows.runtime.configuration import RunConfig, load_run_config
from flows.runtime.runs import Run
from flows.training.assemble import fit_profiles, load_run_data, training_data
from flows.validate import ValidateConfig, validate_batch
from models import registry
from models.ranking.trees.lambdamart import Lambdamart
from models.recommend.chain import Chain, ChainConfig
from models.recommend.queries import build_queries
from models.recommend.rerank.config import MmrConfig
from models.recommend.rules import blocked_items
from models.training import TrainingOptions
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.config import Settings
from shortlist.datasets import stage_source
from shortlist.feature_store import OnlineReader, latest_pack
from shortlist.features.finalize import context_id, schema_hash
from shortlist.lake import Lake
from shortlist.releases.release import ReleaseStore

START = 1_700_006_400_000_000  # 2023-11-15 00:00 UTC
DAYS = 40
KNOWN_USERS = 2_000
"""Number of users with a history of HISTORY events. Requests are for these users."""
HISTORY = 50
OTHER_USERS = 20_000
"""Number of further users, with 10 events on average."""
CATEGORIES = 40
"""Number of categories ("shelves") of items."""
ITEMS_PER_REQUEST = 400
"""Number of items over the number of requests in a training batch, above 256 requests."""
CANDIDATES_PER_SOURCE = 125
TREES, LEAVES = 300, 31
SOURCES = (
    '{ kind = "two_tower", batch_size = BATCH }',
    '{ kind = "sasrec", loss = "sampled_softmax", batch_size = BATCH }',
    '{ kind = "item_knn", neighbours = [100], shrinkage = [10.0], decay = [0.9] }',
    '{ kind = "recent_popularity", days = [7] }',
)
CONFIG = "load.toml"


def build_home(home: Path, *, num_items: int, seed: int = 0) -> Settings:
    """Ingest, validate and featurize a synthetic log, then publish and promote a release."""
    settings = Settings(home=home, clock="replay")
    config = _config(home / "source", num_items=num_items, seed=seed)
    batch = stage_source(config.data, settings, now=START + DAYS * DAY)
    validate_batch(settings, batch.batch_id, ValidateConfig(), clock="replay")
    newest = Lake(settings.lake).manifest.latest
    assert newest is not None, "the log has events"
    featurize(settings, config.data.target_events, until=newest + 1)
    _publish(settings, config, seed=seed)
    return settings


def _config(folder: Path, *, num_items: int, seed: int) -> RunConfig:
    """Write the source files and return the run's configuration."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    category = rng.integers(CATEGORIES, size=num_items)
    items = pa.table(
        {
            "item_id": [f"i{n}" for n in range(num_items)],
            "title": [f"Item {n} of shelf {shelf}" for n, shelf in enumerate(category)],
            "categories": [[f"shelf {shelf}", f"hall {shelf % 7}"] for shelf in category],
            "brand": [f"brand {n % 500}" for n in range(num_items)],
            "price": np.round(rng.gamma(2.0, 20.0, size=num_items), 2),
            "published_at": _times(START - rng.integers(0, 900, size=num_items) * DAY),
        }
    )
    pq.write_table(items, folder / "items.parquet")
    users = np.concatenate(
        [
            np.repeat(np.arange(KNOWN_USERS), HISTORY),
            KNOWN_USERS + rng.integers(OTHER_USERS, size=10 * OTHER_USERS),
        ]
    )
    # Each user has a favourite category (shelf), from which two thirds of the user's events are.
    order = np.argsort(category, kind="stable")
    first = np.searchsorted(category[order], np.arange(CATEGORIES))
    count = np.bincount(category, minlength=CATEGORIES)
    favourite = users % CATEGORIES
    popular = rng.random(len(users)) ** 3
    item = np.where(
        rng.random(len(users)) < 2 / 3,
        order[first[favourite] + (popular * count[favourite]).astype(int)],
        (popular * num_items).astype(int),
    )
    times = START + np.sort(rng.integers(0, DAYS * DAY, size=len(users)))
    mixed = rng.permutation(len(users))
    events = pa.table(
        {
            "user_id": [f"u{n}" for n in users[mixed]],
            "item_id": [f"i{n}" for n in item[mixed]],
            "event_type": np.where(rng.random(len(users)) < 0.7, "click", "purchase"),
            "time": _times(times),
            "device": np.where(rng.random(len(users)) < 0.5, "phone", "desktop"),
        }
    )
    pq.write_table(events, folder / "events.parquet")
    # Each step updates the vectors of all items, so larger catalogues get fewer steps.
    batch = max(256, num_items // ITEMS_PER_REQUEST)
    same = ", ".join(f'{name} = "{name}"' for name in items.column_names)
    lines = [
        'name = "load"',
        "[data]",
        'source = "files"',
        'target_events = ["click", "purchase"]',
        'clock = "replay"',
        "[data.files.interactions]",
        'path = "events.parquet"',
        'columns = { user_id = "user_id", item_id = "item_id", event_type = "event_type",'
        ' event_timestamp = "time", device = "device" }',
        "[data.files.items]",
        'path = "items.parquet"',
        f"columns = {{ {same} }}",
        "[train]",
        f"sources = [{', '.join(SOURCES).replace('BATCH', str(batch))}]",
        'rankers = [{ kind = "lambdamart" }]',
    ]
    path = folder / CONFIG
    path.write_text("\n".join(lines) + "\n")
    return load_run_config(path)


def _times(values: np.ndarray) -> pa.Array:
    return pa.array(values, pa.int64()).cast(pa.timestamp("us", tz="UTC"))


def _publish(settings: Settings, config: RunConfig, *, seed: int) -> None:
    run = Run.start(settings, config)
    run_data = load_run_data(settings, run)
    end = run.data_end
    profiles = fit_profiles(run_data, end=end)
    data = training_data(run_data, profiles, end=end)
    options = TrainingOptions(seed=seed)
    fitted = {
        source.kind: registry.refit(source, data, options, frozen={"epochs": 1})
        for source in config.train.sources
    }
    names = tuple(fitted)
    chain = Chain(
        ChainConfig(
            candidate_sources=names,
            score_sources=names,
            candidates_per_source=CANDIDATES_PER_SOURCE,
            rerank=MmrConfig(strength=0.1),
        ),
        sources=fitted,
        ranker=None,
        catalogue=data.catalogue,
        profiles=profiles,
    )
    ranker = _train_ranker(settings, chain, at=end, seed=seed)
    about = {
        "chain": chain.config.model_dump(mode="json"),
        "sources": {name: name for name in names},
        "ranker": "lambdamart",
        "ranking_schema": chain.schema.to_json(),
        "feature_schema": schema_hash(),
        "dataset": config.name,
        "clock": "replay",
        "tick": config.tick,
        "target_events": list(config.data.target_events),
        "data_end": end,
    }
    store = ReleaseStore(settings.releases)
    with store.publishing(about) as (folder, about):
        for name, source in fitted.items():
            (folder / "sources" / name).mkdir(parents=True)
            source.save(folder / "sources" / name)
        (folder / "ranker").mkdir()
        ranker.save(folder / "ranker")
        data.catalogue.save(folder / "items.parquet")
        (folder / "profiles.json").write_text(json.dumps(profiles.to_json()))
    store.promote(about["release_id"])
    run.end(settings)


def _train_ranker(settings: Settings, chain: Chain, *, at: int, seed: int) -> Lambdamart:
    """Train a ranker of TREES trees with LEAVES leaves.

    Its labels are the 10 best candidates by the sources' fused ranks, with noise.
    """
    rng = np.random.default_rng(seed)
    users = [f"u{n}" for n in range(200)]
    contexts = [context_id(surface=None, device="phone", at=at)] * len(users)
    rows = OnlineReader(settings).read(users, contexts, np.full(len(users), at))
    queries = build_queries(
        rows,
        catalogue=chain.catalogue,
        profiles=chain.profiles,
        exclude=blocked_items(chain.catalogue),
    )
    items = latest_pack(settings.packs).align(chain.catalogue.vocab)
    shortlist = chain.shortlist(queries, items)
    x = chain.features(queries, items, shortlist)
    real = shortlist.item_idx > 0
    fused_score = chain.fused(shortlist)
    wanted = np.where(real, fused_score, -np.inf) + rng.gumbel(scale=0.01, size=fused_score.shape)
    label = (wanted >= np.sort(wanted, axis=1)[:, -10:-9]) & real
    dataset = lgb.Dataset(x[real], label=label[real], group=real.sum(1))
    params = {"objective": "lambdarank", "num_leaves": LEAVES, "verbosity": -1, "seed": seed}
    return Lambdamart(lgb.train(params, dataset, TREES))
