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

from benchmarks._result import about_machine, peak_gb, report
from benchmarks.content_worth.data import HiddenItemsLog, Log, movielens_1m, simulated
from benchmarks.content_worth.figures import Figures
from benchmarks.content_worth.image_topic import image_topic
from benchmarks.content_worth.variants import MODALITIES, variants
from models import registry
from models.content.config import ContentFeatures
from models.content.modalities import ContentEncoder
from models.queries import Queries, mask_left_out, top_k
from models.training import TrainingOptions
from models.vector_source import VectorSource
from shortlist.metrics import ndcg, recall


def judge(
    data: HiddenItemsLog, queries: Queries, relevant: list[np.ndarray], scores: np.ndarray
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


def neighbours(
    data: HiddenItemsLog, read: ContentFeatures, queries: Queries, options: Any
) -> np.ndarray:
    """Score by the cosine to the mean content of the ten newest items of a history: (B, N + 1)."""
    _, blocks = ContentEncoder.fit(
        read, data.catalogue, reviews=data.training.reviews, options=options
    )
    lengths = queries.lengths
    column = np.arange(queries.history.shape[1])
    newest = np.where(column >= lengths[:, None] - 10, queries.history, 0)
    means = np.stack([blocks[row].sum(0) for row in newest])
    return means @ blocks.T


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
    if unknown := set(datasets) - set(MODALITIES):
        parser.error(
            f"--datasets: {', '.join(sorted(unknown))} unknown, want {', '.join(MODALITIES)}"
        )
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
        data = HiddenItemsLog(log)
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
        name = "all but reviews" if len(MODALITIES[dataset]) > 2 else "text + categories"
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
        "random_cold_recall@50": round(float(np.mean([50 / size["items"] for size in sizes])), 4),
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
            for found in [[topic[name] for topic in topics if name in topic]]
        }
    return out


if __name__ == "__main__":
    main()
