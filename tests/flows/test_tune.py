"""Studies: the search, its budget, resuming, refusals, and the comparison with other seeds."""

import json
from pathlib import Path

import numpy as np
import pytest

from flows.tuning.space import RANKER_SPACE, SOURCE_SPACE, changed, current, flat, space_of
from flows.tuning.study import SEEDS, Fitted, TuningError, tune
from models.baselines.ease import EaseConfig
from models.ranking.registry import RANKERS
from models.registry import parse_source
from models.sequence.sasrec import SasrecConfig
from tests.conftest import shortlist
from tests.examples import endurance

USERS = [f"u{number}" for number in range(40)]
SPACE = {key: SOURCE_SPACE[key] for key in ("dropout", "optimiser.learning_rate")}


class Peak:
    """A training whose nDCG is largest at dropout 0.5, plus noise by seed."""

    def __init__(self, *, noise: float = 0.0, slope: float = 1.0):
        self.noise, self.slope = noise, slope
        self.calls: list[tuple[float, int, bool]] = []

    def __call__(self, config, seed, report) -> Fitted:
        self.calls.append((config.dropout, seed, report is not None))
        good = 0.5 - self.slope * abs(config.dropout - 0.5)
        if report is not None:
            for epoch in (1, 2, 3):
                report(epoch, good * epoch / 3)
        random = np.random.default_rng([seed, round(config.dropout * 1e6)])
        return Fitted(USERS, good + self.noise * random.normal(size=len(USERS)))


def study(path: Path, fit, **more):
    options = {
        "space": SPACE,
        "path": path / "s.db",
        "data": "d",
        "minutes": 0,
        "trials": 24,
        "seed": 0,
    }
    return tune(SasrecConfig(dropout=0.1), fit, **(options | more))


def test_a_better_value_is_found_and_confirmed_with_other_seeds(tmp_path):
    fit = Peak()
    result = study(tmp_path, fit)
    assert fit.calls[0] == (0.1, 0, True)  # the first trial has the current values
    assert result["better"]
    assert abs(result["changes"]["dropout"] - 0.5) < 0.2
    assert result["gain"]["low"] > 0
    assert result["best"]["mean"] > result["current"]["mean"]
    last = fit.calls[-2 * SEEDS :]
    assert [seed for _, seed, _ in last] == [1, 2, 3, 1, 2, 3]
    assert not any(reports for _, _, reports in last)


def test_the_best_of_noise_is_no_gain(tmp_path):
    result = study(tmp_path, Peak(noise=0.2, slope=0.0))
    assert not result["better"]
    assert result["gain"]["low"] < 0 < result["gain"]["high"]


def test_a_study_goes_on_where_it_was_interrupted(tmp_path):
    class Interrupted(Peak):
        def __call__(self, config, seed, report):
            if len(self.calls) == 4:
                raise KeyboardInterrupt
            return super().__call__(config, seed, report)

    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, Interrupted())
    fit = Peak()
    result = study(tmp_path, fit, trials=1)
    searched = [call for call in fit.calls if call[2]]
    assert len(searched) == 1  # one more trial; the current values aren't tried again
    assert searched[0][0] != 0.1
    assert 3 <= result["trials"] <= 5
    with pytest.raises(TuningError, match="other data or settings; remove the file"):
        study(tmp_path, fit, data="other")


def test_a_trial_that_fails_is_only_a_bad_trial(tmp_path):
    class Diverges(Peak):
        def __call__(self, config, seed, report):
            if config.dropout > 0.4:
                raise ValueError("the loss is nan")
            return super().__call__(config, seed, report)

    lines: list[str] = []
    result = study(tmp_path, Diverges(), progress=lines.append)
    assert any("failed: the loss is nan" in line for line in lines)
    assert result["changes"].get("dropout", 0.1) <= 0.4

    class Broken(Peak):
        def __call__(self, config, seed, report):
            raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        study(tmp_path / "new", Broken())


def test_choices_that_a_config_refuses_are_left_out():
    space = space_of(RANKERS["value"].config(), RANKER_SPACE)
    assert None not in space["min_data_in_leaf"].choices
    assert (
        None in space_of(RANKERS["lambdamart"].config(), RANKER_SPACE)["min_data_in_leaf"].choices
    )


def test_a_model_with_a_grid_of_its_own_is_refused(tmp_path):
    with pytest.raises(TuningError, match="'ease' has nothing to tune"):
        tune(
            EaseConfig(),
            Peak(),
            space=SOURCE_SPACE,
            path=tmp_path / "s.db",
            data="",
            minutes=0,
            seed=0,
        )


@pytest.mark.parametrize("kind", ["two_tower", "content", "sasrec", "bsarec", "gru", "average"])
def test_every_neural_source_has_a_space_that_contains_its_values(kind):
    config = parse_source(json.dumps({"kind": kind}))
    space = space_of(config, SOURCE_SPACE)
    assert {"dropout", "optimiser.learning_rate", "batch_size"} <= set(space)
    now = current(config, space)
    assert all(space[key]._contains(space[key].to_internal_repr(now[key])) for key in space)
    assert changed(config, now) == config


@pytest.mark.parametrize("kind", RANKERS)
def test_every_ranker_has_a_space(kind):
    config = RANKERS[kind].config()
    space = space_of(config, RANKER_SPACE)
    assert len(space) >= 4
    assert changed(config, current(config, space)) == config


def test_values_of_nested_configs_are_changed():
    config = changed(SasrecConfig(), {"optimiser.learning_rate": 0.004, "dropout": 0.3})
    assert (config.optimiser.learning_rate, config.dropout) == (0.004, 0.3)
    assert flat(config)["optimiser.learning_rate"] == 0.004


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["content", pytest.param("lambdamart", marks=endurance("fits all sources"))]
)
def test_the_command_tunes_a_source_and_a_ranker_of_a_run(trainable_home, world_config, kind):
    done = shortlist(
        "tune",
        kind,
        str(world_config),
        "--minutes",
        "0",
        "--json",
        home=trainable_home,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    result = json.loads(done.stdout)
    assert result["trials"] == 1
    assert result["changes"] == {}  # the only trial has the current values
    assert len(result["current"]["ndcg@10"]) == SEEDS
    assert result["toml"].startswith(f'{{ kind = "{kind}"')
    again = shortlist(
        "tune",
        kind,
        str(world_config),
        "--run",
        result["run_id"],
        "--minutes",
        "0",
        "--json",
        home=trainable_home,
        timeout=600,
    )
    assert json.loads(again.stdout)["trials"] >= 1


def test_an_unknown_kind_is_refused_with_the_known_ones(trainable_home, world_config):
    done = shortlist("tune", "nothing", str(world_config), home=trainable_home)
    assert done.returncode == 2
    assert "'nothing' is no source or ranker of" in done.stderr
