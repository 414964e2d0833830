"""`shortlist bench search`: how well searches find what people chose after them.

Uses the newest run under SHORTLIST_HOME whose step `train` is done (`shortlist train CONFIG`). A
request is a search of the log at its time; relevant are the items that the user chose from it
(shortlist/lake/searches.py). Methods, over the full catalogue:

- `words`: BM25 over the items' texts;
- `vectors untrained`, `vectors`: query vectors without and with the map learned from searches;
- combinations of these with the ranker's order for the user, by reciprocal rank fusion;
- `chosen`: with the weights that `shortlist train` chooses on the validation window.

The test window is read with sources fitted before it. Intervals are 95% bootstrap intervals over
users.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._result import about_machine, command_line, report, rounded
from flows.runtime.runs import Run
from flows.training.assemble import load_run_data
from flows.training.choose_search import Searches, choose_search, searches_of
from models.content.fusion import ContentModel
from models.queries import pad_lists
from models.recommend.chain import Chain
from models.recommend.loading import load_chain
from models.recommend.search import VECTORS, WORDS, match
from models.search.text_index import TextIndex
from models.search.weights import SearchWeights
from models.vector_source import VectorSource
from shortlist.config import Settings
from shortlist.metrics import bootstrap_mean, ndcg, paired_difference, recall

METHODS: dict[str, tuple[tuple[str, ...], SearchWeights, bool]] = {
    "words": ((WORDS,), SearchWeights(personal=0), True),
    "vectors untrained": ((VECTORS,), SearchWeights(personal=0), False),
    "vectors": ((VECTORS,), SearchWeights(personal=0), True),
    "words + vectors": ((WORDS, VECTORS), SearchWeights(personal=0), True),
    "words + ranker": ((WORDS,), SearchWeights(), True),
    "all, equal weights": ((WORDS, VECTORS), SearchWeights(), True),
}
"""Method -> ways of finding items, weights, and whether the trained map is used."""
METRICS = {"ndcg@10": (ndcg, 10), "recall@10": (recall, 10), "recall@50": (recall, 50)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    settings = Settings()
    run = Run.open(settings)
    about = run.read("about.json", made_by="train")
    run_data = load_run_data(settings, run)
    trial, backtest = (
        load_chain(run.staging, about, sources=folder)
        for folder in (existing(run.trial), existing(run.backtest))
    )
    choice = choose_search(settings, run, run_data, trial)
    methods = METHODS | {"chosen": ((WORDS, VECTORS), choice.weights, True)}
    result = {
        "command": command_line("search"),
        **about_machine(),
        "dataset": run.config.name,
        "seed": run.config.seed,
        "chosen": choice.weights.model_dump(),
        "chosen_by": choice.figures,
        "test": judge(searches_of(settings, run, run_data, window="test"), backtest, methods),
    }
    report(result, arguments.out)


def existing(folder: Path) -> Path:
    if not folder.is_dir():
        raise SystemExit(f"error: {folder} is gone, because the run ended; want `shortlist train`")
    return folder


def judge(
    searches: list[Searches],
    chain: Chain,
    methods: dict[str, tuple[tuple[str, ...], SearchWeights, bool]],
) -> dict[str, Any]:
    """Return the figures of all methods on the searches of a window."""
    users = [user for each in searches for user in each.batch.queries.user_ids]
    index = TextIndex(chain.catalogue.texts)
    values: dict[str, dict[str, np.ndarray]] = {}
    for name, (ways, weights, trained) in methods.items():
        lists = []
        for each in searches:
            live = each.batch.over(chain)
            used = live if trained else without_map(live)
            batch = each.batch
            found = match(used, lambda: index, batch.queries, batch.items, each.texts, ways=ways)
            lists.append(pad_lists(found.best(weights, k=50).item_idx, 50))
        values[name] = {
            metric: np.concatenate(
                [
                    measure(ranked, each.batch.relevant, k=k)
                    for ranked, each in zip(lists, searches, strict=True)
                ]
            )
            for metric, (measure, k) in METRICS.items()
        }
    rng = np.random.default_rng(0)
    out: dict[str, Any] = {"searches": len(users)}
    for name, each in values.items():
        out[name] = {
            metric: rounded(bootstrap_mean(users, of, rng=rng)) for metric, of in each.items()
        }
        if name != "words":
            over = paired_difference(users, each["ndcg@10"], values["words"]["ndcg@10"], rng=rng)
            out[name]["ndcg@10 over words"] = rounded(over)
    return out


def without_map(chain: Chain) -> Chain:
    """Return the chain with query vectors that didn't learn from searches."""
    source = chain.sources["content"]
    assert isinstance(source, VectorSource)
    assert isinstance(source.model, ContentModel)
    model = source.model.without_query_map()
    other = VectorSource(
        source.name,
        config=source.config,
        model=model,
        item_vectors=source.item_vectors,
        index=source.index,
    )
    changed = chain.live(chain.catalogue, chain.new)
    changed.sources = chain.sources | {"content": other}
    return changed


if __name__ == "__main__":
    main()
