"""Evaluates each source and each baseline alone, without other sources and without ranker."""

from collections.abc import Iterable

from flows.evaluation.champion import CHAMPION
from flows.evaluation.judge import Lists, filled
from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import EvaluationBatch
from flows.training.sources import reference_kinds
from models import registry
from models.baselines.popularity import Popularity
from models.queries import pad_lists
from models.recommend.chain import Chain
from models.recommend.cold_start.short_history import FALLBACK
from shortlist.items.catalogue import Catalogue
from shortlist.splits import Windows

FALLBACK_DAYS = 7
"""Window in days of recent popularity, if the run doesn't have it as a source."""


def judge_sources(
    run: Run,
    config: RunConfig,
    backtest: Chain,
    ticks: list[EvaluationBatch],
    *,
    catalogue: Catalogue,
    k: int,
) -> dict[str, Lists]:
    """Return the lists of each source and baseline alone, without other sources and ranker.

    Sources that the chain doesn't use were not refitted. They are evaluated as fitted on the first
    window, or left out of an incremental run; see `fitted_until`. Empty positions are filled with
    recently popular items, as in service.

    Returns:
        {source or baseline: lists}.
    """
    sources = {
        source.kind: registry.load(source.kind, run.trial / source.kind, catalogue)
        for source in config.train.sources
        if source.kind not in backtest.sources and (run.trial / source.kind).is_dir()
    } | backtest.sources
    for source_type in reference_kinds(config):
        folder = run.references / source_type
        if folder.is_dir():
            sources[source_type] = registry.load(source_type, folder, catalogue)
    if FALLBACK not in sources:
        sources[FALLBACK] = Popularity(FALLBACK, days=FALLBACK_DAYS)
    lists = {
        name: Lists.of(
            [pad_lists(source.retrieve(t.queries, t.items, k=k).item_idx, k) for t in ticks]
        )
        for name, source in sources.items()
    }
    return {name: filled(of_source, lists[FALLBACK]) for name, of_source in lists.items()}


def fitted_until(run: Run, methods: Iterable[str], *, windows: Windows) -> dict[str, int]:
    """Return {method: end of the events that it was fitted on, in microseconds}.

    It is the test window's start for methods that were refitted, else the end of the first window;
    for the champion of an incremental run, the end of its training.
    """
    again = {"chain", CHAMPION, FALLBACK}
    for folder in (run.backtest, run.references):
        again |= {path.name for path in folder.iterdir()}
    first, test = windows["retrieval_train"][1], windows["test"][0]
    until = {name: test if name in again else first for name in methods}
    if run.is_incremental:
        until[CHAMPION] = run.read("about.json", made_by="train")["training"]["since"]
    return until
