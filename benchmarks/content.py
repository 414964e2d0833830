"""`shortlist bench content`: what each modality of an item's content is worth.

Data sets: the simulated shop and video service, and MovieLens-1M with plot summaries. A tenth of
the items is hidden from training. The content source is fitted with one modality, with all, and
with all but one; the two-tower model with and without content. Figures on the test window:

- `cold_recall@50`: wanted items without a training event (cold items), over the full catalogue;
- `cold_ndcg@10 among cold`: the same items, ranked among cold items alone;
- `warm_ndcg@10`: the other wanted items, over the full catalogue.

Choices are made by the nDCG@10 of warm items on validation.

Intervals are 95% bootstrap intervals over users. The seeds of a user are averaged first.
`image_topic` is the share of held-out pictures of the shop whose topic the image encoder finds.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks._content_data import Hidden, Log, movielens_1m, simulated
from benchmarks._result import about_machine, peak_gb, report
from models import registry
from models.content.config import MINILM, TFIDF, TRAINED, ContentFeatures, FusionConfig
from models.content.convolution import SIZE, fit_image_encoder
from models.content.fusion import ContentConfig
from models.content.images import read_images
from models.content.modalities import ContentEncoder
from models.queries import Queries, mask_left_out, top_k
from models.retrieval.two_tower import TwoTowerConfig
from models.training import OptimiserConfig, TrainingOptions
from models.vector_source import VectorSource
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
TEXT = {"shop": TFIDF, "video": TFIDF, "ml-1m": MINILM}
"""Text encoder; the simulated texts come from a small grammar, for which a transformer is not
needed."""
HAS = {
    "shop": tuple(PARTS),
    "video": ("text", "categories", "reviews", *VECTORS),
    "ml-1m": ("text", "categories"),
}

FUSIONS: dict[str, dict[str, Any]] = {
    "open gates, no modality dropout": {"fusion": FusionConfig(gates="open", modality_dropout=0)},
    "modality dropout 0.4": {"fusion": FusionConfig(modality_dropout=0.4)},
    "collaborative 0.5": {"collaborative": 0.5},
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
    given = {
        "content": None if read is None else read.model_dump(),
        "max_history": 30,
        "num_negatives": 512,
        "batch_size": 512,
        "optimiser": {"learning_rate": 3e-3, "num_epochs": epochs},
    }
    return TwoTowerConfig.model_validate(given)


def variants(dataset: str, *, epochs: int) -> dict[str, Any]:
    """Return {variant: config} of a data set."""
    there, text = HAS[dataset], TEXT[dataset]

    def read(*parts: str, text: str = text) -> ContentConfig:
        changes = {"text": text} if "text" in parts else {}
        return content(features(*parts, **changes), epochs=epochs)

    alone = ("text", "categories") if dataset == "ml-1m" else ("text", *there[3:])
    found: dict[str, Any] = {f"only {part}": read(part) for part in alone}
    found["text + categories"] = read("text", "categories")
    name = "text + categories"
    if text == MINILM:
        found["text + categories, tfidf"] = read("text", "categories", text=TFIDF)
    if len(there) > 2:
        found["all"] = read(*there)
        name = "all but reviews"
        found[name] = read(*(part for part in there if part != "reviews"))
        if "image" in there:
            found["all but image"] = read(*(part for part in there if part != "image"))
    base = found[name]
    for change, changes in FUSIONS.items():
        found[f"{name}, {change}"] = base.model_copy(update=changes)
    found["two_tower"] = two_tower(None, epochs=epochs)
    found[f"two_tower + {name}"] = two_tower(base.features, epochs=epochs)
    return found


def judge(
    data: Hidden, queries: Queries, relevant: list[np.ndarray], scores: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of each request.

    Args:
        scores: dense (B, N + 1) scores; changed in place.
    """
    cold = [items[data.cold[items]] for items in relevant]
    warm = [items[~data.cold[items]] for items in relevant]
    ranked = top_k(mask_left_out(scores, queries), 50).item_idx
    scores[:, ~data.cold] = -np.inf
    among = top_k(scores, 10).item_idx
    return {
        "cold_recall@50": recall(ranked, cold, k=50),
        "cold_ndcg@10 among cold": ndcg(among, cold, k=10),
        "warm_ndcg@10": ndcg(ranked, warm, k=10),
    }


def neighbours(data: Hidden, read: ContentFeatures, queries: Queries, options: Any) -> np.ndarray:
    """Score by the cosine to the mean content of the ten newest items of a history: (B, N + 1)."""
    _, blocks = ContentEncoder.fit(
        read, data.catalogue, reviews=data.training.reviews, options=options
    )
    lengths = queries.lengths
    column = np.arange(queries.history.shape[1])
    newest = np.where(column >= lengths[:, None] - 10, queries.history, 0)
    means = np.stack([blocks[row].sum(0) for row in newest])
    return means @ blocks.T


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
        if name == "images alone" and seed:  # one seed, to save time
            continue
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
        """Return a mean for each user of any seed: over the requests of a seed, then over seeds."""
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
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--days", type=int, default=28, help="length of the simulated logs")
    parser.add_argument("--users", type=int, default=500, help="users of ml-1m")
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

    def save(dataset: str, figures: dict[str, Any], *, shown: Any = "") -> None:
        results[dataset] = figures
        content = {
            "command": f"shortlist bench content --datasets {arguments.datasets}"
            f" --seeds {arguments.seeds} --epochs {arguments.epochs} --days {arguments.days}"
            f" --users {arguments.users}" + (" --path ml-1m" if arguments.path else ""),
            **about_machine(),
            "seconds_wall": round(time.perf_counter() - started, 1),
            "seconds_cpu": round(time.process_time(), 1),
            "peak_gb": peak_gb(),
            "datasets": results,
        }
        report(content, arguments.out, shown=shown)

    with TemporaryDirectory() as folder:
        cache = arguments.cache or Path(folder)
        load: dict[str, Callable[[int], Log]] = {
            "shop": lambda seed: simulated(
                "shop", seed=seed, targets=("click", "purchase"), days=arguments.days, cache=cache
            ),
            "video": lambda seed: simulated(
                "video", seed=seed, targets=("watch",), days=arguments.days, cache=cache, least=60
            ),
            "ml-1m": lambda seed: movielens_1m(
                arguments.path, seed=seed, users=arguments.users, newest=70
            ),
        }
        for dataset in datasets:
            done = partial(save, dataset)
            save(dataset, run(dataset, load[dataset], arguments, cache, done), shown=None)


def run(
    dataset: str,
    load: Callable[[int], Log],
    arguments: argparse.Namespace,
    cache: Path,
    save: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Return the figures of a data set; `save` gets those of the seeds so far after each seed."""
    figures, topics, sizes = Figures(), [], []
    chosen = variants(dataset, epochs=arguments.epochs)
    if arguments.only:
        wanted = {"text + categories", *arguments.only.split(";")}
        chosen = {name: chosen[name] for name in chosen if name in wanted}
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
        name = "all but reviews" if len(HAS[dataset]) > 2 else "text + categories"
        if name in chosen:
            scores = neighbours(data, chosen[name].features, queries, options)
            found = judge(data, queries, relevant, scores)
            figures.add(f"content_knn, {name}", users, found)
        for name, config in chosen.items():
            began = time.perf_counter()
            source = registry.fit(config, data.training, data.validation, options)
            assert isinstance(source, VectorSource)
            scores = source.query_vectors(queries) @ source.item_vectors.T
            found = judge(data, queries, relevant, scores)
            figures.add(name, users, found)
            figures.validation.setdefault(name, []).append(data.validation.ndcg(source))
            figures.seconds.setdefault(name, []).append(time.perf_counter() - began)
            shown = ", ".join(f"{key} {np.nanmean(values):.4f}" for key, values in found.items())
            print(f"  {name}: {shown}, {figures.seconds[name][-1]:.1f} s", flush=True)
        save(summarised(figures, topics, sizes))
    return summarised(figures, topics, sizes)


def summarised(
    figures: Figures, topics: list[dict[str, float]], sizes: list[dict[str, int]]
) -> dict[str, Any]:
    """Return means and intervals of the seeds so far; differences are from text + categories."""
    reference = "text + categories"
    out: dict[str, Any] = {
        "seeds": len(sizes),
        "sizes": sizes,
        "random_cold_recall@50": round(float(np.mean([50 / one["items"] for one in sizes])), 4),
        "methods": figures.summary(reference=reference),
    }
    if topics:
        out["image_topic"] = {
            name: {
                "mean": round(float(np.mean(found)), 4),
                "std": round(float(np.std(found)), 4),
                "seeds": len(found),
            }
            for name in topics[0]
            for found in [[one[name] for one in topics if name in one]]
        }
    return out


if __name__ == "__main__":
    main()
