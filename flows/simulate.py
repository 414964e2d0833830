"""Simulate: users of a simulated world live with recommenders, arm by arm, day after day."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.simulation.arms import Arm
from flows.simulation.figures import BY_DAY, summarise
from flows.simulation.journal import DayLog
from flows.simulation.loop import ArmLoop
from flows.simulation.plots import Line, write_charts
from flows.simulation.setting import Schedule, Setting
from shortlist.config import Settings
from shortlist.datasets.simulated import World, load_world_config

PLOTTED = (*BY_DAY, "effective_items", "effective_topics")


def open_setting(
    preset: str,
    *,
    days: int,
    seed: int | None = None,
    schedule: Schedule | None = None,
    cache: Path,
) -> Setting:
    """A world long enough for `days` days of the arms' own.

    Raises:
        ConfigError: unknown preset, or impossible parameters.
    """
    schedule = schedule or Schedule()
    changes: dict[str, object] = {"days": schedule.start + days, "seed": seed}
    return Setting(World(load_world_config(preset, changes=changes)), days, schedule, cache)


def simulate_in_process(
    setting: Setting, arms: list[Arm], *, folder: Path, say: Callable[[str], None]
) -> dict[str, list[DayLog]]:
    """Live all days of all arms; days that are on disk are not lived again.

    Args:
        folder: each arm's days lie in a folder of its own under the setting's key.
    """
    lived = {}
    logging.getLogger("lightgbm").setLevel(logging.WARNING)
    for arm in arms:
        own = folder / setting.key / arm.name
        lived[arm.name] = ArmLoop(setting, arm, own).run(say)
    return lived


def simulate(
    preset: str,
    *,
    days: int,
    arms: list[Arm],
    seed: int | None = None,
    schedule: Schedule | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """The command's work in process: figures, and where the plots lie."""
    settings = Settings()
    folder = settings.home / "simulations"
    setting = open_setting(preset, days=days, seed=seed, schedule=schedule, cache=settings.cache)
    lived = simulate_in_process(setting, arms, folder=folder, say=say)
    result = about(setting) | summarise(setting, lived)
    plot = folder / setting.key / f"{'-'.join(arm.name for arm in arms)[:80]}.svg"
    plot_days(plot, result)
    return result | {"plot": str(plot), "folder": str(folder / setting.key)}


def about(setting: Setting) -> dict[str, Any]:
    config = setting.world.config
    return {
        "preset": config.name,
        "seed": config.seed,
        "users": setting.world.num_users,
        "items": setting.world.num_items,
        "days": setting.days,
        "schedule": setting.schedule.model_dump(),
    }


def plot_days(path: Path, result: dict[str, Any]) -> None:
    """One chart a figure, one line an arm."""
    charts = {
        metric: [
            Line(
                name,
                [day["day"] for day in arm["days"]],
                [day[metric]["mean"] for day in arm["days"]],
                low=[day[metric]["low"] for day in arm["days"]],
                high=[day[metric]["high"] for day in arm["days"]],
            )
            for name, arm in result["arms"].items()
        ]
        for metric in PLOTTED
    }
    title = f"{result['preset']}, seed {result['seed']}: {result['days']} days by arm"
    write_charts(path, charts, title=title)
