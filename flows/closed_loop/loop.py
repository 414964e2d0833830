"""The closed loop of one arm in process: simulates days, retrains, and resumes after any day."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flows.closed_loop.arms import Arm
from flows.closed_loop.journal import DayLog, finished_days
from flows.closed_loop.learn import fit_recommender
from flows.closed_loop.memory import MemoryStore
from flows.closed_loop.observe import Observer
from flows.closed_loop.recommend_policy import RecommendPolicy
from flows.closed_loop.setting import Setting
from models.recommend.recommender import Recommender
from shortlist.behaviour.repeats import EXCLUDE
from simulation.behaviour import LatentState
from simulation.day import Policy, simulate_day
from simulation.oracle import OraclePolicy
from simulation.policy import LoggingPolicy, Page
from simulation.state import State


@dataclass(frozen=True)
class LoggingHomePolicy:
    """Fills home pages with the logging policy (the simulated site's policy without a model).

    It makes the same random draws as RecommendPolicy in shadow mode. So all arms have the same
    pages before the first day on which arms fill them.
    """

    logging: LoggingPolicy

    def slates(
        self, page: Page, *, moment: LatentState, k: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return self.logging.slates(page, k=k, rng=rng)


@dataclass
class ArmLoop:
    """Simulates the days of one arm (a policy that fills the home pages) in this process.

    Days that are stored in `folder` are loaded instead.
    """

    setting: Setting
    arm: Arm
    folder: Path
    logs: list[DayLog] = field(default_factory=list)
    recommender: Recommender | None = None
    fitted: int = -1

    def __post_init__(self) -> None:
        setting, world = self.setting, self.setting.world
        self.store = MemoryStore(
            setting.user_ids,
            setting.item_ids,
            setting.attributes,
            once=setting.repeats == EXCLUDE,
        )
        self.allowed = np.ones((world.num_users, world.num_items), dtype=bool)
        self.state = State.fresh(world, 0, world.num_users)
        for day in range(min(finished_days(self.folder), setting.end)):
            log = DayLog.load(self.folder, day)
            self.logs.append(log)
            self.store.push(log.targets)
            if setting.repeats == EXCLUDE:
                self.allowed[log.targets.user, log.targets.item] = False
            self.state = log.state.copy()

    def run(self, report: Callable[[str], None]) -> list[DayLog]:
        """Simulate the days that are not on disk; return the logs of all days."""
        spent = 0.0
        for day in range(len(self.logs), self.setting.end):
            started = time.perf_counter()
            log = self.run_day(day)
            log.save(self.folder)
            self.logs.append(log)
            spent += time.perf_counter() - started
            if (day + 1) % 7 == 0 or day + 1 == self.setting.end:
                report(f"{self.arm.name}: {day + 1} of {self.setting.end} days, {spent:.1f} s")
        return self.logs

    def run_day(self, day: int) -> DayLog:
        """Simulate one day; the caller saves the log."""
        setting = self.setting
        logging = LoggingPolicy(setting.world, day)
        policy = self._policy(day, logging)
        recommending = policy if isinstance(policy, RecommendPolicy) else None
        observer = Observer(
            setting=setting,
            day=day,
            store=self.store if self.arm.learns else None,
            allowed=self.allowed,
            policy=recommending,
            weights=self.arm.weights,
        )
        simulate_day(setting.world, self.state, day, policy=policy, watch=observer, logging=logging)
        return observer.log(self.state.copy())

    def _policy(self, day: int, logging: LoggingPolicy) -> Policy | None:
        setting, schedule = self.setting, self.setting.schedule
        if day < schedule.warm_days:
            return None
        if not self.arm.learns and day < schedule.start:
            return LoggingHomePolicy(logging)
        if self.arm.oracle is not None:
            objective = self.arm.oracle
            return OraclePolicy(setting.world, day, objective, allowed=self.allowed)
        if not self.arm.learns:
            return LoggingHomePolicy(logging)
        self._update_models(day)
        assert self.recommender is not None
        shadow = logging if day < schedule.start else None
        return RecommendPolicy(setting, self.arm, self.store, self.recommender, shadow)

    def _update_models(self, day: int) -> None:
        """Retrain the models if a training is due; update the catalogue and the item features."""
        due = self._due(day)
        if due != self.fitted:
            before = [log for log in self.logs if log.day < due]
            self.recommender = fit_recommender(self.setting, self.arm, self.store, before, day=due)
            self.fitted = due
        assert self.recommender is not None
        pack = self.store.tick(self.setting.world.midnight(day))
        self.recommender.swap_pack(replace(pack, items=self.setting.catalogue(day).items))

    def _due(self, day: int) -> int:
        schedule = self.setting.schedule
        if day < schedule.start:
            return schedule.warm_days
        return day - (day - schedule.start) % schedule.retrain_days
