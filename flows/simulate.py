"""Simulate: runs recommenders (arms) against the users of a simulated world, day by day.

In the first days, the site's logging policy fills the home pages; then the arms do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.closed_loop.arms import Arm, in_process_problem, over_http_problem
from flows.closed_loop.figures import BY_DAY, summarise
from flows.closed_loop.journal import DayLog
from flows.closed_loop.loop import ArmLoop
from flows.closed_loop.plots import Line, write_charts
from flows.closed_loop.service_loop import ServiceLoop
from flows.closed_loop.setting import Schedule, Setting
from shortlist.config import ConfigError, Settings
from simulation import World, load_world_config
from simulation.config import MAX_DAYS

PLOTTED = (*BY_DAY, "effective_items", "effective_topics")
Report = Callable[[str], None]


def open_setting(
    preset: str,
    *,
    days: int,
    seed: int | None = None,
    schedule: Schedule | None = None,
    cache: Path,
) -> Setting:
    """Build a world with `days` days after the day on which the arms start to fill the pages.

    Raises:
        ConfigError: the preset is unknown, a parameter is out of bounds, or there are too many
            days.
    """
    schedule = schedule or Schedule()
    if schedule.start + days > MAX_DAYS:
        raise ConfigError(
            f"--days {days}: want at most {MAX_DAYS - schedule.start:,}; a world has at most"
            f" {MAX_DAYS:,} days, and the arms start after {schedule.start}"
        )
    changes: dict[str, object] = {"days": schedule.start + days, "seed": seed}
    world = World(load_world_config(preset, changes=changes))
    return Setting(world, days, schedule, cache, preset)


def simulate_in_process(
    setting: Setting, arms: Sequence[Arm], *, folder: Path, report: Report
) -> dict[str, list[DayLog]]:
    """Simulate all days of all arms in this process; days found on disk are loaded instead.

    Args:
        folder: the days are stored in `<folder>/<setting.key>/<arm name>`.

    Raises:
        ConfigError: an arm runs over HTTP only.
    """
    _refuse(arms, in_process_problem)
    setting_folder = folder / setting.key
    return {arm.name: ArmLoop(setting, arm, setting_folder / arm.name).run(report) for arm in arms}


def simulate_with_service(
    setting: Setting, arms: Sequence[Arm], *, folder: Path, report: Report
) -> dict[str, list[DayLog]]:
    """Simulate all days of all arms, with each learned arm as a release served over HTTP.

    Days found on disk are loaded instead, as in `simulate_in_process`.

    Raises:
        ConfigError: an arm runs in process only.
        StartError, ServiceError: a service did not start, or stopped answering.
    """
    _refuse(arms, over_http_problem)
    setting_folder = folder / f"{setting.key}-service"
    logs = {}
    for arm in arms:
        loop = ServiceLoop if arm.learns else ArmLoop
        logs[arm.name] = loop(setting, arm, setting_folder / arm.name).run(report)
    return logs


def _refuse(arms: Sequence[Arm], why_not: Callable[[Arm], str | None]) -> None:
    """Raise ConfigError if `why_not` returns a problem for an arm."""
    for arm in arms:
        problem = why_not(arm)
        if problem is not None:
            raise ConfigError(problem)


def simulate(
    preset: str,
    *,
    days: int,
    arms: Sequence[Arm],
    seed: int | None = None,
    schedule: Schedule | None = None,
    in_process: bool = True,
    report: Report = print,
) -> dict[str, Any]:
    """Run the simulation; return the figures and the paths of the plot and of the folder.

    Raises:
        ConfigError: see `open_setting` and `simulate_in_process`.
        StartError, ServiceError: see `simulate_with_service`.
    """
    settings = Settings()
    folder = settings.home / "simulations"
    setting = open_setting(preset, days=days, seed=seed, schedule=schedule, cache=settings.cache)
    run = simulate_in_process if in_process else simulate_with_service
    logs = run(setting, arms, folder=folder, report=report)
    result = about(setting) | summarise(setting, logs)
    plot = folder / setting.key / f"{'-'.join(arm.name for arm in arms)[:80]}.svg"
    plot_days(plot, result)
    return result | {"plot": str(plot), "folder": str(folder / setting.key)}


def about(setting: Setting) -> dict[str, Any]:
    """Return the part of the result that describes the world and the schedule."""
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
    """Write one chart per figure with one line per arm; figures without any value are left out."""
    charts = {metric: [] for metric in PLOTTED}
    for metric, lines in charts.items():
        for name, arm in result["arms"].items():
            days = [day for day in arm["days"] if day[metric] is not None]
            if days:
                mean, low, high = (
                    [day[metric][key] for day in days] for key in ("mean", "low", "high")
                )
                lines.append(Line(name, [day["day"] for day in days], mean, low=low, high=high))
    charts = {metric: lines for metric, lines in charts.items() if lines}
    title = f"{result['preset']}, seed {result['seed']}: {result['days']} days by arm"
    write_charts(path, charts, title=title)
