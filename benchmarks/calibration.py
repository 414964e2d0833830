"""`shortlist bench calibration --data FOLDER`: compare simulated worlds with real data sets.

FOLDER has the public data sets `trivago`, `ml-1m` and `amazon-s3rec` (RecSys Challenge 2019,
MovieLens-1M, Amazon Beauty in S3-Rec's format). Compared are distributions over users, items and
events, such as history lengths, but never individual users. Distances are Kolmogorov-Smirnov
distances: 0 for equal distributions, 1 for disjoint ones.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks._result import about_machine, report
from flows.closed_loop.plots import Line, write_charts
from simulation import SimulatedConfig, open_world, stream

POSITIONS = 10
"""Number of positions whose clicks are compared."""
BEAUTY_MIN, BEAUTY_MEAN = 5, 8.876
"""Minimum and mean history length in Amazon Beauty."""
ACTIONS = ("click", "view", "search", "add_to_cart", "purchase", "watch", "like", "dislike")
"""Event types that count as actions in a session."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--presets", default="shop,video", help="simulated worlds to compare")
    parser.add_argument("--out", type=Path, help="write the figures to this file as JSON")
    parser.add_argument("--plot", type=Path, help="write the distributions to this file as SVG")
    arguments = parser.parse_args()
    real = real_curves(arguments.data)
    worlds = {name: simulated_curves(name) for name in arguments.presets.split(",")}
    distances = {
        what: {
            name: round(distance(curves[what], real[what][source]), 3)
            for name, curves in worlds.items()
            for source in real[what]
        }
        for what in real
    }
    figures = {
        what: {source: summary(values) for source, values in real[what].items()}
        | {name: summary(curves[what]) for name, curves in worlds.items()}
        for what in real
    }
    rates = {name: curves["rates"] for name, curves in worlds.items()}
    content = about_machine() | {
        "command": "shortlist bench calibration --data ../shared/data"
        f" --presets {arguments.presets}",
        "distance": distances,
        "figures": figures,
        "rates": rates,
        "position_share": {
            name: np.bincount(values, minlength=POSITIONS + 1)[1:].tolist()
            for name, values in [("trivago", real["click position"]["trivago"])]
            + [(name, curves["click position"]) for name, curves in worlds.items()]
        },
    }
    report(content, arguments.out)
    if arguments.plot:
        plot(arguments.plot, real, worlds)


def real_curves(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Read the real data sets: {quantity: {data set: values}}."""
    trivago = pq.read_table(folder / "trivago" / "trivago_val_100k.parquet").to_pandas()
    movies = pq.read_table(folder / "ml-1m" / "ml1m_sequences.parquet", columns=["movie_id"])
    beauty = (folder / "amazon-s3rec" / "Beauty.txt").read_text().splitlines()
    lengths = np.array([len(line.split()) - 1 for line in beauty])
    clicks = trivago[trivago["action_type"] == "clickout item"]
    shown = clicks["impressions"].str.split("|")
    pairs = zip(shown, clicks["reference"], strict=True)
    rank = np.array([row.index(item) + 1 for row, item in pairs if item in row])
    ordered = trivago.sort_values(["session_id", "step"])
    gap = ordered.groupby("session_id")["timestamp"].diff().dropna().to_numpy()
    return {
        "item popularity": {"ml-1m": share_of_items(movies.column("movie_id").to_numpy())},
        "history length": {"beauty": lengths},
        "click position": {"trivago": rank[rank <= POSITIONS]},
        "actions a session": {"trivago": trivago.groupby("session_id").size().to_numpy()},
        "seconds between actions": {"trivago": gap[gap >= 1]},
        "repeats": {"trivago": repeats(clicks["user_id"], clicks["reference"])},
    }


def simulated_curves(preset: str) -> dict:
    """Return the quantities of `real_curves` for the log of a simulated world, and its rates.

    The rates are conversion rates, such as clicks per impression.
    """
    world = open_world(SimulatedConfig(preset=preset))
    log = pa.concat_tables(stream(world, ingested_at=0)).sort_by("event_timestamp")
    event_type = log.column("event_type")
    clicks = log.filter(pc.equal(event_type, "click")).to_pandas()
    acts = log.filter(pc.is_in(event_type, pa.array(ACTIONS))).to_pandas()
    acts = acts.sort_values(["session_id", "event_timestamp"])
    gap = acts.groupby("session_id")["event_timestamp"].diff().dropna().dt.total_seconds()
    counted = pc.value_counts(event_type.combine_chunks())
    count = {row["values"]: row["counts"] for row in counted.to_pylist()}
    return {
        "item popularity": share_of_items(clicks["item_id"].to_numpy()),
        "history length": histories(clicks),
        "click position": clicks["position"].to_numpy().astype(int),
        "actions a session": acts.groupby("session_id").size().to_numpy(),
        "seconds between actions": gap[gap >= 1].to_numpy(),
        "repeats": repeats(clicks["user_id"], clicks["item_id"]),
        "rates": {
            "clicks an impression": round(count["click"] / count["impression"], 4),
            "carts a click": round(count["add_to_cart"] / count["click"], 4),
            "purchases a cart": round(count["purchase"] / count["add_to_cart"], 4),
            "returns a purchase": round(count["return"] / count["purchase"], 4),
            "answers a view": round(count["survey"] / count["view"], 4),
        },
    }


def share_of_items(items: np.ndarray) -> np.ndarray:
    """Return the popularity percentile of each event's item, in (0, 1]: (E,) items -> (E,).

    The distribution of the result is the Lorenz curve of item popularity.
    """
    _, code, counts = np.unique(items, return_inverse=True, return_counts=True)
    rank = np.empty(len(counts))
    rank[np.argsort(-counts, kind="stable")] = np.arange(1, len(counts) + 1) / len(counts)
    return rank[code]


def histories(clicks: pd.DataFrame) -> np.ndarray:
    """Return the number of clicks of each user with at least five, as in Amazon Beauty.

    Counts the log up to the day on which the mean of these numbers is closest to Beauty's, because
    history length also depends on the number of days in a log.
    """
    day = clicks["event_timestamp"].dt.floor("D")
    found = []
    for end in sorted(day.unique()):
        lengths = clicks[day <= end].groupby("user_id").size().to_numpy()
        found.append(lengths[lengths >= BEAUTY_MIN])
    means = [lengths.mean() if len(lengths) > 50 else np.inf for lengths in found]
    return found[int(np.argmin(np.abs(np.array(means) - BEAUTY_MEAN)))]


def repeats(users: pd.Series, items: pd.Series) -> np.ndarray:
    """Return (E,) 1 for each event whose user has an earlier event of the same item, else 0."""
    pairs = pd.DataFrame({"user": users.to_numpy(), "item": items.to_numpy()})
    return pairs.duplicated().to_numpy().astype(float)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance: the largest difference of the distributions."""
    points = np.union1d(first, second)
    below = [np.searchsorted(np.sort(v), points, side="right") / len(v) for v in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def summary(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return {
        "mean": round(float(values.mean()), 4),
        "p10": round(float(low), 4),
        "p50": round(float(middle), 4),
        "p90": round(float(high), 4),
    }


def plot(path: Path, real: dict[str, dict[str, np.ndarray]], worlds: dict[str, dict]) -> None:
    """Plot the distribution functions of all quantities except repeats, as SVG."""
    charts = {}
    for what, sets in real.items():
        if what == "repeats":
            continue
        everything = sets | {name: curves[what] for name, curves in worlds.items()}
        grid = np.quantile(np.concatenate(list(everything.values())), np.linspace(0, 0.98, 120))
        charts[f"{what}, share below"] = [
            Line(name, grid, np.searchsorted(np.sort(v), grid, side="right") / len(v))
            for name, v in everything.items()
        ]
    write_charts(path, charts, title="Simulated worlds beside real sets")


if __name__ == "__main__":
    main()
