"""`shortlist bench content`: what each modality of an item's content is worth.

Data sets: the simulated shop and video service, MovieLens-1M with plot summaries, and
MovieLens-100K (titles and genres alone). A tenth of the items is hidden from training. The content
source is fitted with one modality, with all, and with all but one; the two-tower model with and
without content. Figures on the test window, over the full catalogue: recall@50 of wanted items that
have no training event (`cold`), nDCG@10 of the other ones (`warm`), and nDCG@10 of warm items on
validation, by which choices are made.

Intervals are 95% bootstrap intervals over users. The seeds of a user are averaged first.
`image_topic` is the share of held-out pictures of the shop whose topic the image encoder finds.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks._content_data import Hidden, Log, movielens_1m, movielens_100k, simulated
from benchmarks._result import about_machine, peak_gb, report
from models import registry
from models.content.config import TFIDF, TRAINED, ContentFeatures, FusionConfig
from models.content.convolution import SIZE, fit_image_encoder
from models.content.fusion import ContentConfig
from models.content.images import read_images
from models.content.modalities import ContentEncoder
from models.queries import Queries, mask_left_out, top_k
from models.retrieval.two_tower import TwoTowerConfig
from models.training import OptimiserConfig, TrainingOptions
from shortlist import columns as c
from shortlist.metrics import bootstrap_mean, ndcg, paired_difference, recall

NOTHING: dict[str, Any] = {"text": None, "categories": False, "vectors": False}
PARTS: dict[str, dict[str, Any]] = {
    "text": {"text": "minilm"},
    "categories": {"categories": True},
    "reviews": {"reviews": 10},
    "image": {"images": TRAINED},
    "vector_image": {"vectors": ("vector_image",)},
    "vector_audio": {"vectors": ("vector_audio",)},
    "vector_video": {"vectors": ("vector_video",)},
}
VECTORS = ("vector_image", "vector_audio", "vector_video")
HAS = {
    "shop": tuple(PARTS),
    "video": ("text", "categories", "reviews", *VECTORS),
    "ml-1m": ("text", "categories"),
    "movielens-100k": ("text", "categories"),
}


def features(*parts: str, **changes: Any) -> ContentFeatures:
    """Return the settings that read the named modalities and no others."""
    settings = dict(NOTHING)
    for part in parts:
        own = PARTS[part]
        if "vectors" in own:
            settings["vectors"] = (*(settings["vectors"] or ()), *own["vectors"])
        else:
            settings |= own
    return ContentFeatures.model_validate(settings | changes)


def content(read: ContentFeatures, *, epochs: int, **changes: Any) -> ContentConfig:
    return ContentConfig(
        features=read,
        max_history=30,
        num_negatives=512,
        batch_size=512,
        negatives="used",
        optimiser=OptimiserConfig(learning_rate=3e-3, num_epochs=epochs),
        **changes,
    )


def two_tower(read: ContentFeatures | None, *, epochs: int) -> TwoTowerConfig:
    return TwoTowerConfig(
        content=read,
        max_history=30,
        num_negatives=512,
        batch_size=512,
        optimiser=OptimiserConfig(learning_rate=3e-3, num_epochs=epochs),
    )


def variants(dataset: str, *, epochs: int) -> dict[str, Any]:
    """Return {variant: config} of a data set."""
    there = HAS[dataset]
    every = features(*there)
    found: dict[str, Any] = {
        f"only {part}": content(features(part), epochs=epochs) for part in there
    }
    found["text + categories"] = content(features("text", "categories"), epochs=epochs)
    found["only text, tfidf"] = content(features(text=TFIDF), epochs=epochs)
    by_tfidf = features("categories", text=TFIDF)
    found["text + categories, tfidf"] = content(by_tfidf, epochs=epochs)
    if len(there) > 2:
        found["all"] = content(every, epochs=epochs)
        for part in there:
            rest = [name for name in there if name != part]
            found[f"all but {part}"] = content(features(*rest), epochs=epochs)
    name = "all" if len(there) > 2 else "text + categories"
    for change, changes in {
        "open gates": {"fusion": FusionConfig(gates="open")},
        "no modality dropout": {"fusion": FusionConfig(modality_dropout=0)},
        "modality dropout 0.4": {"fusion": FusionConfig(modality_dropout=0.4)},
        "collaborative 0.5": {"collaborative": 0.5},
    }.items():
        found[f"{name}, {change}"] = content(every, epochs=epochs, **changes)
    found["two_tower"] = two_tower(None, epochs=epochs)
    found["two_tower + content"] = two_tower(every, epochs=epochs)
    return found


def judge(
    data: Hidden, queries: Queries, relevant: list[np.ndarray], ranked: np.ndarray
) -> dict[str, np.ndarray]:
    cold = [items[data.cold[items]] for items in relevant]
    warm = [items[~data.cold[items]] for items in relevant]
    return {
        "cold_recall@50": recall(ranked, cold, k=50),
        "warm_ndcg@10": ndcg(ranked, warm, k=10),
    }


def neighbours(data: Hidden, read: ContentFeatures, queries: Queries, options: Any) -> np.ndarray:
    """Rank by the cosine to the mean content of the ten newest items of the history: (B, 50)."""
    _, blocks = ContentEncoder.fit(
        read, data.catalogue, reviews=data.training.reviews, options=options
    )
    lengths = queries.lengths
    column = np.arange(queries.history.shape[1])
    newest = np.where(column >= lengths[:, None] - 10, queries.history, 0)
    means = np.stack([blocks[row].sum(0) for row in newest])
    return top_k(mask_left_out(means @ blocks.T, queries), 50).item_idx


def image_topic(log: Log, *, seed: int, cache: Path) -> dict[str, float]:
    """Train the image encoder on four in five pictures; find the topic of the others.

    The topic of a held-out picture is that of the nearest centroid of the training pictures.
    """
    assert log.world is not None
    catalogue = log.catalogue
    pixels, rows, _ = read_images(catalogue.items.column(c.IMAGE).to_pylist(), size=SIZE)
    number = [int(item_id[1:]) - 1 for item_id in catalogue.vocab.ids]
    topic = log.world.items.topic[np.array(number)][rows]
    held = np.random.default_rng([seed, 3]).random(len(rows)) < 0.2
    labels = catalogue.category_matrix[1:][rows]
    found: dict[str, float] = {}
    for name, given in {
        "images and categories": labels,
        "images alone": labels[:, :0],
    }.items():
        encoder = fit_image_encoder(pixels[~held], given[~held], seed=seed, cache=cache)
        found[name] = nearest_centroid(encoder.encode(pixels), topic, held)
    flat = pixels.reshape(len(pixels), -1) / 255 - 0.5
    found["raw pixels"] = nearest_centroid(flat, topic, held)
    found["most frequent topic"] = float(np.mean(topic[held] == np.bincount(topic[~held]).argmax()))
    return {name: round(value, 4) for name, value in found.items()}


def nearest_centroid(vectors: np.ndarray, topic: np.ndarray, held: np.ndarray) -> float:
    topics = np.unique(topic[~held])
    centroids = np.stack([vectors[~held & (topic == one)].mean(0) for one in topics])
    distance = ((vectors[held][:, None] - centroids) ** 2).sum(-1)
    return float(np.mean(topics[distance.argmin(1)] == topic[held]))


class Figures:
    """Per-user figures of all variants and seeds."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[tuple[list[str], np.ndarray]]]] = {}
        self.validation: dict[str, list[float]] = {}
        self.seconds: dict[str, list[float]] = {}

    def add(self, variant: str, users: list[str], found: dict[str, np.ndarray]) -> None:
        own = self.values.setdefault(variant, {})
        for metric, values in found.items():
            own.setdefault(metric, []).append((users, values))

    def per_user(self, variant: str, metric: str) -> tuple[list[str], np.ndarray]:
        """Return the mean of each user over requests, then seeds; users of all seeds."""
        sums: dict[str, list[float]] = {}
        for users, values in self.values[variant][metric]:
            own: dict[str, list[float]] = {}
            for user, value in zip(users, values, strict=True):
                if not np.isnan(value):
                    own.setdefault(user, []).append(float(value))
            for user, each in own.items():
                sums.setdefault(user, []).append(float(np.mean(each)))
        names = sorted(sums)
        return names, np.array([np.mean(sums[name]) for name in names])

    def summary(self, *, reference: str) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for variant, metrics in self.values.items():
            row: dict[str, Any] = {}
            for metric, seeds in metrics.items():
                users, values = self.per_user(variant, metric)
                if not users:
                    continue
                each = [float(np.nanmean(found)) for _, found in seeds]
                row[metric] = _rounded(bootstrap_mean(users, values, rng=_rng())) | {
                    "std_of_seeds": round(float(np.std(each)), 4)
                }
                others, base = self.per_user(reference, metric)
                if variant != reference and others == users:
                    row[f"{metric} above '{reference}'"] = _rounded(
                        paired_difference(users, values, base, rng=_rng())
                    )
            if variant in self.validation:
                row["validation_ndcg@10"] = round(float(np.mean(self.validation[variant])), 4)
                row["seconds"] = round(float(np.mean(self.seconds[variant])), 1)
            out[variant] = row
        return out


def _rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _rounded(found: Any) -> dict[str, float]:
    return {name: round(float(found[name]), 4) for name in ("mean", "low", "high")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", default="shop,video,ml-1m", help="separated by commas")
    parser.add_argument("--path", type=Path, help="folder of ml-1m (docs/benchmarks.md)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--days", type=int, default=42, help="length of the simulated logs")
    parser.add_argument("--users", type=int, default=1_000, help="users of ml-1m")
    parser.add_argument("--cache", type=Path, help="folder for vectors; default: a temporary one")
    parser.add_argument("--only", help="variants to fit, separated by semicolons; default: all")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    datasets = arguments.datasets.split(",")
    if unknown := set(datasets) - set(HAS):
        parser.error(f"--datasets: {', '.join(sorted(unknown))} unknown, want {', '.join(HAS)}")
    if "ml-1m" in datasets and arguments.path is None:
        parser.error("--path: want the folder with ml1m_sequences.parquet and movies_text.parquet")
    started, results = time.perf_counter(), {}
    with TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        load: dict[str, Callable[[int], Log]] = {
            "shop": lambda seed: simulated(
                "shop", seed=seed, targets=("click", "purchase"), days=arguments.days, cache=cache
            ),
            "video": lambda seed: simulated(
                "video", seed=seed, targets=("watch",), days=arguments.days, cache=cache, least=60
            ),
            "movielens-100k": lambda seed: movielens_100k(cache, seed=seed),
            "ml-1m": lambda seed: movielens_1m(
                arguments.path, seed=seed, users=arguments.users, newest=110
            ),
        }
        for dataset in datasets:
            results[dataset] = run(dataset, load[dataset], arguments, cache)
    report(
        {
            "command": f"shortlist bench content --datasets {arguments.datasets}"
            f" --seeds {arguments.seeds} --epochs {arguments.epochs} --days {arguments.days}"
            f" --users {arguments.users}" + (" --path ml-1m" if arguments.path else ""),
            **about_machine(),
            "seconds_wall": round(time.perf_counter() - started, 1),
            "seconds_cpu": round(time.process_time(), 1),
            "peak_gb": peak_gb(),
            "datasets": results,
        },
        arguments.out,
    )


def run(
    dataset: str, load: Callable[[int], Log], arguments: argparse.Namespace, cache: Path
) -> dict[str, Any]:
    figures, topics, sizes = Figures(), [], []
    chosen = variants(dataset, epochs=arguments.epochs)
    if arguments.only:
        chosen = {name: chosen[name] for name in arguments.only.split(";") if name in chosen}
    for seed in range(arguments.seeds):
        log = load(seed)
        data = Hidden(log)
        options = TrainingOptions(seed=seed, num_threads=1, cache=cache)
        queries, relevant = data.requests("test")
        users = [f"{seed if log.world else ''}:{user}" for user in queries.user_ids]
        sizes.append(
            {
                "items": data.catalogue.num_items,
                "cold_items": int(data.cold.sum()),
                "training_events": len(data.training.item_idx),
                "requests": len(queries),
            }
        )
        print(f"{dataset}, seed {seed}: {sizes[-1]}", flush=True)
        if dataset == "shop":
            topics.append(image_topic(log, seed=seed, cache=cache))
            print(f"image topic: {topics[-1]}", flush=True)
        for name in ("text + categories", "all") if len(HAS[dataset]) > 2 else ("all",):
            read = features(*HAS[dataset]) if name == "all" else features("text", "categories")
            ranked = neighbours(data, read, queries, options)
            figures.add(f"content_knn, {name}", users, judge(data, queries, relevant, ranked))
        for name, config in chosen.items():
            began = time.perf_counter()
            source = registry.fit(config, data.training, data.validation, options)
            ranked = source.retrieve(queries, data.no_items, k=50).item_idx
            found = judge(data, queries, relevant, ranked)
            figures.add(name, users, found)
            figures.validation.setdefault(name, []).append(data.validation.ndcg(source))
            figures.seconds.setdefault(name, []).append(time.perf_counter() - began)
            shown = ", ".join(f"{key} {np.nanmean(values):.4f}" for key, values in found.items())
            print(f"  {name}: {shown}, {figures.seconds[name][-1]:.1f} s", flush=True)
    reference = "text + categories" if "text + categories" in chosen else next(iter(chosen))
    out: dict[str, Any] = {
        "sizes": sizes,
        "random_cold_recall@50": round(float(np.mean([50 / one["items"] for one in sizes])), 4),
        "methods": figures.summary(reference=reference),
    }
    if topics:
        out["image_topic"] = {
            name: {
                "mean": round(float(np.mean([one[name] for one in topics])), 4),
                "std": round(float(np.std([one[name] for one in topics])), 4),
            }
            for name in topics[0]
        }
    return out


if __name__ == "__main__":
    main()
