"""Tune: searches better hyperparameters of a source or ranker on a run's validation window.

Sources are trained on the first window of the data. Rankers are trained on the second window, on
the candidates of all of the configuration's sources, which are fitted once per run.
"""

import hashlib
import json
import shutil
from typing import Any

from prefect import flow

from flows.runtime.configuration import RunConfig
from flows.runtime.runs import Run
from flows.training.assemble import RunData, as_validation, load_run_data, training_data
from flows.training.ranking_data import RankingWindows, chain_of_all, gather, ranker_options
from flows.training.sources import Job, fit_sources, in_order
from flows.training.windows import read_windows
from flows.tuning.space import RANKER_SPACE, SOURCE_SPACE
from flows.tuning.study import Fit, Fitted, TuningError, nothing_to_tune, tune
from models import registry
from models.ranking.protocol import scores_of
from models.ranking.registry import KINDS, RANKERS, fit_ranker
from models.ranking.value_heads import ValueHeadsConfig
from models.training import TrainingOptions
from shortlist.config import Settings


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
    config = tunable(run.config, kind)
    is_ranker = kind in RANKERS
    fit = (_ranker_fit if is_ranker else _source_fit)(settings, run, load_run_data(settings, run))
    about = json.dumps([run_id, run.config.seed, config.model_dump(mode="json")], sort_keys=True)
    return tune(
        config,
        fit,
        space=RANKER_SPACE if is_ranker else SOURCE_SPACE,
        path=run.tuning / f"{kind}.db",
        data=hashlib.sha256(about.encode()).hexdigest()[:16],
        minutes=minutes,
        seed=run.config.seed,
    )


def tunable(config: RunConfig, kind: str) -> Any:
    """Return the config of a source or ranker of a run that can be tuned.

    Raises:
        TuningError: there is no such source or ranker, or it has nothing to tune.
    """
    known = {one.kind: one for one in (*config.train.sources, *config.rankers)}
    if kind not in known:
        raise TuningError(
            f"'{kind}' is no source or ranker of configuration '{config.name}', want one of"
            f" {', '.join(known)}"
        )
    if kind in KINDS and kind not in RANKERS:
        raise TuningError(f"'{kind}' is made of other rankers; tune its members instead")
    if kind not in RANKERS and not hasattr(known[kind], "optimiser"):
        raise nothing_to_tune(kind)
    return known[kind]


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
        source = registry.fit(source_config, data, validation, options)
        return Fitted(validation.users, validation.ndcg_of_requests(source))

    return fit


def _ranker_fit(settings: Settings, run: Run, run_data: RunData) -> Fit:
    config = run.config
    names = ("ranker_train", "validation")
    ticks, profiles = read_windows(
        run.states(settings), run_data, config, windows=names, rankers=config.rankers
    )
    data = training_data(run_data, profiles, end=run_data.windows["retrieval_train"][1])
    folder = run.tuning / "sources"
    kinds = tuple(source.kind for source in config.train.sources)
    missing = [s for s in in_order(config.train.sources) if not (folder / s.kind / "done").exists()]
    for source in missing:
        shutil.rmtree(folder / source.kind, ignore_errors=True)  # left by an interruption
    validation = as_validation(ticks["validation"])
    fit_sources([Job(s, data, validation, folder) for s in missing], config, settings.cache)
    for source in missing:
        (folder / source.kind / "done").touch()
    sources = {kind: registry.load(kind, folder / kind, run_data.catalogue) for kind in kinds}
    chain = chain_of_all(config, run_data, profiles, sources)
    gathered = {window: gather(chain, ticks[window]) for window in ticks}
    window = RankingWindows.of(chain, ticks, gathered)
    valid = window.valid.data
    base = ranker_options(config)

    def fit(ranker_config: Any, seed: int, report: Any) -> Fitted:
        options = TrainingOptions(
            device=base.device, seed=seed, num_threads=base.num_threads, report=report
        )
        ranker = fit_ranker(ranker_config, window.of_ranker(ranker_config), valid, options)
        scores = scores_of(ranker, valid)
        if isinstance(ranker_config, ValueHeadsConfig):
            return Fitted(valid.users, valid.value(scores, ranker_config.weights))
        return Fitted(valid.users, valid.ndcg(scores))

    return fit
