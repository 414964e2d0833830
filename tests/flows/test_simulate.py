"""The closed loop in process: arms, exploration, features in memory, resuming."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli import show
from cli.main import app
from flows.closed_loop.arms import Arm, parse_arms
from flows.closed_loop.figures import summarise
from flows.closed_loop.loop import ArmLoop
from flows.closed_loop.memory import MemoryStore, Targets
from flows.closed_loop.nights import run_config
from flows.closed_loop.setting import Schedule, Setting
from models.ranking.value import CLICKS_ALONE, ValueWeights
from models.recommend.exploring.explore import draw_extra, mix_in
from shortlist.config import ConfigError
from shortlist.contracts import EVENT_CODE
from shortlist.features.finalize import DAY_BUCKETS, ITEM_STATE, USER_STATE
from simulation import SimulatedConfig, World, load_simulated, load_world_config, open_world

SCHEDULE = Schedule(warm_days=4, shadow_days=2, retrain_days=3)
# Without the content model: its text encoder takes longer to load than this whole file.
CHAIN = Arm("chain", ("item_knn", "recent_popularity"), ValueWeights(), explore=0.2, mmr=0.3)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    config = load_world_config("tiny", changes={"days": SCHEDULE.start + 5})
    return Setting(World(config), 5, SCHEDULE, tmp_path_factory.mktemp("cache"), "tiny")


@pytest.fixture(scope="module")
def lived(setting, tmp_path_factory) -> dict:
    folder = tmp_path_factory.mktemp("lived")
    arms = [CHAIN, *parse_arms("popularity,oracle,logging")]
    return {arm.name: ArmLoop(setting, arm, folder / arm.name).run(print) for arm in arms}


def test_an_interrupted_loop_goes_on_to_the_same_result(setting, lived, tmp_path):
    first = ArmLoop(setting, CHAIN, tmp_path)
    for day in range(8):  # stop between two trainings, after a finished day ...
        log = first.run_day(day)
        log.save(tmp_path)
        first.logs.append(log)
    first.run_day(8)  # ... and after a day that isn't saved
    again = ArmLoop(setting, CHAIN, tmp_path)
    assert len(again.logs) == 8
    for one, other in zip(again.run(print), lived["chain"], strict=True):
        for name, values in one.pages.items():
            np.testing.assert_array_equal(values, other.pages[name], err_msg=name)
        for name, values in one.shown.items():
            np.testing.assert_array_equal(values, other.shown[name], err_msg=name)
        for name, values in one.state.arrays().items():
            np.testing.assert_array_equal(values, other.state.arrays()[name], err_msg=name)


def test_all_arms_live_the_same_days_until_they_take_over(lived):
    """All arms have the same days until their start, and different lists afterwards."""
    for day in range(SCHEDULE.start):
        pages = [logs[day].pages["clicks"] for logs in lived.values()]
        assert all(np.array_equal(pages[0], other) for other in pages[1:])
    after = [logs[SCHEDULE.start].shown["item"] for logs in lived.values()]
    assert not any(np.array_equal(after[0], other) for other in after[1:])


def test_the_oracle_has_no_regret_and_the_others_have(setting, lived):
    result = summarise(setting, lived)["arms"]
    summary = {name: arm["summary"] for name, arm in result.items()}
    assert summary["oracle"]["regret"]["mean"] == pytest.approx(0, abs=1e-6)
    for name in ("popularity", "chain", "logging"):
        assert summary[name]["regret"]["low"] > 0
        assert summary[name]["satisfaction"]["high"] < summary["oracle"]["satisfaction"]["low"]
    for arm in result.values():
        for figures in (arm["summary"], *arm["days"]):
            for name, figure in figures.items():
                if name != "day" and figure is not None:
                    assert figure["low"] <= figure["mean"] <= figure["high"], name
    days = result["chain"]["days"]
    assert [day["day"] for day in days] == list(range(SCHEDULE.start, setting.end))


def test_a_weeks_figures_are_of_the_arms_own_days(setting, lived):
    """Figures of an arm exclude the days before its start, on which another policy filled pages."""
    logs, start = lived["popularity"], SCHEDULE.start
    arm = summarise(setting, {"popularity": logs})["arms"]["popularity"]
    days, there = arm["days"], setting.world.users_on(start)
    came = np.unique(np.concatenate([log.pages["user"] for log in logs[start:]])).astype(int)
    assert arm["summary"]["retention"]["mean"] == pytest.approx((came < there).sum() / there)
    share = np.bincount(logs[start].shown["item"].astype(int)) / len(logs[start].shown["item"])
    share = share[share > 0]
    wanted = np.exp(-(share * np.log(share)).sum())
    assert days[0]["effective_items"]["mean"] == pytest.approx(wanted, rel=1e-5)
    assert [day["retention"] for day in days] == [None] * 5


def test_retention_is_there_once_it_can_tell_arms_apart(setting, lived):
    """Retention is reported only for days whose 7-day period lies after the arms' start."""
    early = replace(setting, schedule=Schedule(warm_days=2, shadow_days=1), days=8)
    logs = lived["popularity"]
    days = summarise(early, {"popularity": logs})["arms"]["popularity"]["days"]
    assert [day["retention"] is None for day in days] == [True] * 7 + [False]
    world = setting.world
    came = np.unique(np.concatenate([log.pages["user"] for log in logs[4:11]])).astype(int)
    there = world.users_on(3)
    wanted = (came < there).sum() / there
    assert days[7]["retention"]["mean"] == pytest.approx(wanted)


def test_nobody_is_shown_what_they_consumed_or_what_is_not_there_yet(setting, lived):
    consumed: set[tuple[int, int]] = set()
    for log in lived["chain"]:
        if log.day >= SCHEDULE.start:
            born = setting.world.items.born[log.shown["item"].astype(int)]
            assert (born <= log.day).all()
            pairs = zip(log.shown["user"].tolist(), log.shown["item"].tolist(), strict=True)
            assert not consumed & set(pairs)
        consumed |= set(zip(log.targets.user.tolist(), log.targets.item.tolist(), strict=True))


@pytest.fixture(scope="module")
def staples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, dict]:
    """Arms of a world in which users need the same items every two days."""
    population = {"users": 120, "users_per_day": 0, "staples": 5, "staple_days": 2.0}
    changes = {"days": SCHEDULE.start + 3, "population": population}
    world = World(load_world_config("tiny", changes=changes))
    setting = Setting(world, 3, SCHEDULE, tmp_path_factory.mktemp("cache"), "staples")
    folder = tmp_path_factory.mktemp("staples")
    plain = replace(CHAIN, mmr=0.0, explore=0.0)
    arms = [plain, *parse_arms("popularity,oracle")]
    return setting, {arm.name: ArmLoop(setting, arm, folder / arm.name).run(print) for arm in arms}


def test_lists_repeat_what_users_had_if_the_world_has_staples(staples):
    setting, logs = staples
    assert setting.repeats == run_config(setting, parse_arms("chain")[0]).data.repeats == "allow"
    for name in ("chain", "oracle"):
        consumed: set[tuple[int, int]] = set()
        repeated = 0
        for log in logs[name]:
            if log.day >= SCHEDULE.start:
                pairs = zip(log.shown["user"].tolist(), log.shown["item"].tolist(), strict=True)
                repeated += len(consumed & set(pairs))
            consumed |= set(zip(log.targets.user.tolist(), log.targets.item.tolist(), strict=True))
        assert repeated > 5, name


def test_no_page_beats_the_best_one_if_items_may_be_repeated(staples):
    """The oracle's best list may have consumed items, as the lists of all arms may."""
    setting, logs = staples
    for arm in logs.values():
        for log in arm[SCHEDULE.start :]:
            home = log.pages["home"].astype(bool)
            assert (log.pages["best"][home] >= log.pages["expected"][home] - 1e-6).all()
    summary = summarise(setting, logs)["arms"]["oracle"]["summary"]
    assert summary["regret"]["mean"] == pytest.approx(0, abs=1e-6)


def test_exploration_happens_as_often_as_its_propensity_says():
    rng = np.random.default_rng(0)
    blocked = np.zeros((4_000, 31), dtype=bool)
    top = np.tile(np.arange(1, 6), (4_000, 1))
    np.put_along_axis(blocked, top, True, axis=1)
    extra = draw_extra(blocked, k=5, rng=rng)
    assert extra.min() >= 6
    assert (np.sort(extra, axis=1)[:, 1:] > np.sort(extra, axis=1)[:, :-1]).all()
    drawn, chance = mix_in(top, extra, share=0.2, allowed=np.full(4_000, 25), rng=rng)
    assert drawn.mean() == pytest.approx(0.2, abs=0.01)
    shown = np.where(drawn, extra, top)
    counts = np.bincount(shown[:, 0], minlength=31) / 4_000
    assert counts[1] == pytest.approx(0.8, abs=0.03)
    assert counts[6:] == pytest.approx(0.2 / 25, abs=0.006)
    assert set(np.unique(chance.round(6))) == {round(0.2 / 25, 6), 0.8}


def test_worth_is_the_sum_of_its_signals():
    """The value is the weighted sum of all signals; ratings count relative to 3."""
    signals = {
        "click": np.array([1.0, 1.0, 0.0]),
        "purchase": np.array([1.0, 0.0, 0.0]),
        "rating": np.array([5.0, 1.0, 0.0]),
        "watch": np.array([0.75, np.nan, np.nan]),
        "hide": np.array([0.0, 0.0, 1.0]),
    }
    weights = ValueWeights(purchase=0.5, rating=0.5, watch=1.0, hide=-0.5)
    assert weights.value(signals).tolist() == [0.5 + 1.0 + 0.5, -1.0, -0.5]
    assert CLICKS_ALONE.value(signals).tolist() == [1.0, 1.0, 0.0]


def test_features_in_memory_are_those_of_the_lake(tmp_path):
    """States in MemoryStore equal those that featurize builds from the same events."""
    from shortlist.feature_store import build_states

    world = open_world(SimulatedConfig(preset="tiny", days=9))
    batch = load_simulated(SimulatedConfig(preset="tiny", days=9), cache=tmp_path, now=1)
    path = tmp_path / "events.parquet"
    pq.write_table(batch.interactions, path)
    until = world.midnight(8)
    kinds = ("click", "rating", "hide")
    build_states([path], batch.users, folder=tmp_path / "states", target_events=kinds, until=until)
    frame = batch.interactions.to_pandas()
    frame = frame[frame["event_type"].isin(kinds)].sort_values(["event_timestamp", "event_order"])
    user_ids = batch.users.column("user_id").to_pylist()
    item_ids = batch.items.column("item_id").to_pylist()
    hour = frame["event_timestamp"].dt.strftime("%H")
    surface, device = (frame[name].fillna("unknown") for name in ("surface", "device"))
    time = frame["event_timestamp"].astype("int64").to_numpy()
    targets = Targets(
        user=np.searchsorted(user_ids, frame["user_id"]),
        item=np.searchsorted(item_ids, frame["item_id"]),
        time=time,
        value=frame["value"].to_numpy(),
        type_code=frame["event_type"].map(EVENT_CODE).to_numpy(),
        context=(surface + "|" + device + "|" + hour).to_numpy(dtype=str),
    )
    store = MemoryStore(user_ids, item_ids, {})
    store.push(targets.before(until))
    pack = store.tick(until)
    stored = pq.read_table(tmp_path / "states" / "item_state").to_pandas()
    stored = stored.sort_values("event_timestamp").groupby("item_id").last()
    at_tick = stored[stored["event_timestamp"].astype("int64") == until]
    assert len(at_tick) > 30
    rows = np.searchsorted(item_ids, at_tick.index)
    for name in ITEM_STATE:
        wanted = np.stack(at_tick[name].to_list())
        np.testing.assert_allclose(pack.state[name][rows], wanted, rtol=1e-9, err_msg=name)
    assert pack.state["item_day_counts"].shape == (len(item_ids), DAY_BUCKETS)
    newest = pq.read_table(tmp_path / "states" / "user_stats").to_pandas()
    newest = newest.sort_values("event_timestamp").groupby("user_id").last()
    read = store.read(
        list(newest.index), ["home|phone|20"] * len(newest), np.full(len(newest), until)
    )
    for name in USER_STATE:
        np.testing.assert_allclose(read.user[name], newest[name], rtol=1e-9, err_msg=name)
    events = pq.read_table(tmp_path / "states" / "user_history").to_pandas()
    types = {(e.user_id, e.item_id): e.type_code for e in events.itertuples()}
    for user, items, codes in zip(
        newest.index, read.history_items, read.history_types, strict=True
    ):
        assert [types[user, item] for item in items] == codes.tolist()
    assert {EVENT_CODE["click"], EVENT_CODE["hide"], EVENT_CODE["rating"]} <= {*types.values()}
    contexts = pq.read_table(tmp_path / "states" / "context_trend").to_pandas()
    contexts = contexts.sort_values("event_timestamp").groupby("context_id").last()
    wanted = contexts.loc["home|phone|20", "context_events"]
    assert read.context["context_events"][0] == wanted > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("popularity,fancy", "arm 'fancy' is unknown, want one of logging, popularity"),
        ("oracle+explore", r"'\+explore' is not possible"),
        ("value+rocket", r"'\+rocket' is not possible"),
        ("value,value", "each arm once"),
        (" , ", "no arms given"),
    ],
)
def test_arms_that_are_not_there_are_named(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_arms(text)


def test_the_command_gives_one_json_object_and_keeps_finished_days(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    ask = ["simulate", "--preset", "tiny", "--days", "2", "--arms", "popularity,oracle", "--json"]
    done = CliRunner().invoke(app, [*ask, "--in-process"], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert list(result["arms"]) == ["popularity", "oracle"]
    assert result["differences"]["oracle - popularity"]["satisfaction"]["low"] > 0
    assert Path(result["plot"]).read_text().startswith("<svg")
    again = CliRunner().invoke(app, [*ask, "--in-process"], catch_exceptions=False)
    assert json.loads(again.stdout) == result
    assert "days," in done.stderr
    assert "days," not in again.stderr, "a finished day was lived again"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arms", "magic"], "arm 'magic' is unknown"),
        (["--preset", "atlantis"], "preset 'atlantis' is unknown, want one of"),
        (["--days", "100000"], "--days 100000: want at most 3,636; a world has at most 3,650"),
    ],
)
def test_a_users_mistake_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["simulate", "--in-process", *arguments])
    assert done.exception is not None
    assert show.is_for_users(done.exception)
    assert message in str(done.exception)


def test_a_seed_below_zero_is_named_as_the_option(tmp_path, monkeypatch):
    monkeypatch.setenv("SHORTLIST_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["simulate", "--in-process", "--seed", "-1"])
    assert done.exit_code == 2
    assert "'--seed'" in done.stderr


def test_a_world_where_nobody_clicks_has_nothing_to_learn_from(tmp_path):
    path = tmp_path / "mute.toml"
    path.write_text(
        'name = "mute"\n[population]\nusers = 40\nusers_per_day = 0\n[behaviour]\nclick = -20\n'
    )
    config = load_world_config(str(path), changes={"days": SCHEDULE.start + 1})
    setting = Setting(World(config), 1, SCHEDULE, tmp_path, str(path))
    arm = parse_arms("popularity")[0]
    with pytest.raises(
        ConfigError, match="no click, rating or survey in 4 days, so arm 'popularity' has"
    ):
        ArmLoop(setting, arm, tmp_path / "arm").run(print)
