"""Tune: searches better hyperparameters of a source or ranker on a run's validation window.

Sources are trained on the first window of the data. Rankers are trained on the second window, on
the candidates of all of the configuration's sources, which are fitted once per run.
"""

import hashlib
import json
import shutil
from typing import Any

import numpy as np
from prefect import flow

from flows.runtime.runs import Run
from flows.training.assemble import RunData, as_validation, load_run_data, training_data
from flows.training.ranking_data import RankingWindows, gather, ranker_options
from flows.training.sources import Job, fit_sources, in_order
from flows.training.windows import read_windows
from flows.tuning.space import RANKER_SPACE, SOURCE_SPACE
from flows.tuning.study import Fit, Fitted, TuningError, tune
from models import registry
from models.data import Validation
from models.queries import Source
from models.ranking.protocol import scores_of
from models.ranking.registry import RANKERS, fit_ranker
from models.ranking.value_heads import ValueHeadsConfig
from models.recommend.chain import Chain, ChainConfig
from models.training import TrainingOptions
from shortlist.config import Settings
from shortlist.metrics import ndcg

FOLDER = "tune"
"""Folder of a run with its studies, and the sources for studies of rankers."""


@flow(name="tune", log_prints=True)
def tune_flow(run_id: str, kind: str, minutes: float) -> dict[str, Any]:
    """Run or resume the study of a source or ranker of a run's configuration.

    Args:
        run_id: id of a frozen run; its test window is not read.
        kind: type of a source or ranker in `[train]`.
        minutes: time budget, including the comparison of the best values with the current ones.

    Returns:
        The result of `flows.tuning.study.tune`.

    Raises:
        TuningError: the configuration has no such source or ranker, or it has nothing to tune.
    """
    settings = Settings()
    run = Run.open(settings, run_id)
    train = run.config.train
    sources = {config.kind: config for config in train.sources}
    rankers = {config.kind: config for config in run.config.rankers}
    if kind not in (*sources, *rankers):
        raise TuningError(
            f"'{kind}' is no source or ranker of configuration '{run.config.name}', want one of"
            f" {', '.join((*sources, *rankers))}"
        )
    if kind in rankers and kind not in RANKERS:
        raise TuningError(f"'{kind}' is made of other rankers; tune its members instead")
    run_data = load_run_data(settings, run)
    if kind in sources:
        if not hasattr(sources[kind], "optimiser"):
            raise TuningError(
                f"'{kind}' has nothing to tune here: its training tries a grid on validation itself"
            )
        config, fit = sources[kind], _source_fit(settings, run, run_data)
    else:
        config, fit = rankers[kind], _ranker_fit(settings, run, run_data)
    about = json.dumps([run_id, run.config.seed, config.model_dump(mode="json")], sort_keys=True)
    return tune(
        config,
        fit,
        space=SOURCE_SPACE if kind in sources else RANKER_SPACE,
        path=run.path / FOLDER / f"{kind}.db",
        data=hashlib.sha256(about.encode()).hexdigest()[:16],
        minutes=minutes,
        seed=run.config.seed,
    )


def _source_fit(settings: Settings, run: Run, run_data: RunData) -> Fit:
    config = run.config
    ticks, profiles = read_windows(run.states(settings), run_data, config, windows=("validation",))
    data = training_data(run_data, profiles, end=run_data.windows["retrieval_train"][1])
    validation = as_validation(ticks["validation"])

    def fit(source_config: Any, seed: int, report: Any) -> Fitted:
        options = TrainingOptions(
            device=config.train.device,
            seed=seed,
            num_threads=config.train.threads * config.train.parallel,
            cache=settings.cache,
            index=config.train.index,
            report=report,
        )
        return judged(registry.fit(source_config, data, validation, options), validation)

    return fit


def judged(source: Source, validation: Validation) -> Fitted:
    """Return the nDCG@10 of a source on the validation requests."""
    users: list[str] = []
    values = []
    for queries, items, relevant in validation.ticks:
        users += queries.user_ids
        values.append(ndcg(source.retrieve(queries, items, k=10).item_idx, relevant, k=10))
    return Fitted(users, np.concatenate(values))


def _ranker_fit(settings: Settings, run: Run, run_data: RunData) -> Fit:
    config = run.config
    names = ("ranker_train", "validation")
    ticks, profiles = read_windows(run.states(settings), run_data, config, windows=names)
    data = training_data(run_data, profiles, end=run_data.windows["retrieval_train"][1])
    folder = run.path / FOLDER / "sources"
    kinds = tuple(source.kind for source in config.train.sources)
    missing = [s for s in in_order(config.train.sources) if not (folder / s.kind / "done").exists()]
    for source in missing:
        shutil.rmtree(folder / source.kind, ignore_errors=True)  # left by an interruption
    validation = as_validation(ticks["validation"])
    fit_sources([Job(s, data, validation, folder) for s in missing], config, settings.cache)
    for source in missing:
        (folder / source.kind / "done").touch()
    chain = Chain(
        ChainConfig(
            candidate_sources=kinds,
            score_sources=kinds,
            candidates_per_source=config.train.candidates_per_source,
            repeats=config.data.repeats,
        ),
        sources={kind: registry.load(kind, folder / kind, run_data.catalogue) for kind in kinds},
        ranker=None,
        catalogue=run_data.catalogue,
        profiles=profiles,
    )
    gathered = {window: gather(chain, ticks[window]) for window in ticks}
    window = RankingWindows.of(chain, ticks, gathered)
    valid = window.valid.data
    base = ranker_options(config)

    def fit(ranker_config: Any, seed: int, report: Any) -> Fitted:
        options = TrainingOptions(
            device=base.device, seed=seed, num_threads=base.num_threads, report=report
        )
        if not isinstance(ranker_config, ValueHeadsConfig):
            ranker = fit_ranker(ranker_config, window.train.data, valid, options)
            return Fitted(valid.users, valid.ndcg(scores_of(ranker, valid)))
        ranker = fit_ranker(ranker_config, window.train.data, valid, options)
        return Fitted(valid.users, valid.value(scores_of(ranker, valid), ranker_config.weights))

    return fit
