"""Simulate: users of a simulated world live with recommenders, arm by arm, day after day."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flows.closed_loop.arms import Arm, why_not_in_process, why_not_over_http
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
Say = Callable[[str], None]


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
        ConfigError: unknown preset, impossible parameters, or more days than a world has.
    """
    schedule = schedule or Schedule()
    if schedule.start + days > MAX_DAYS:
        raise ConfigError(
            f"--days {days}: want at most {MAX_DAYS - schedule.start:,}; a world has {MAX_DAYS:,}"
            f" days, {schedule.start} of them before the arms take over"
        )
    changes: dict[str, object] = {"days": schedule.start + days, "seed": seed}
    world = World(load_world_config(preset, changes=changes))
    return Setting(world, days, schedule, cache, preset)


def simulate_in_process(
    setting: Setting, arms: Sequence[Arm], *, folder: Path, say: Say
) -> dict[str, list[DayLog]]:
    """Live all days of all arms; days that are on disk are not lived again.

    Args:
        folder: each arm's days lie in a folder of its own under the setting's key.

    Raises:
        ConfigError: an arm's ranker is the pipeline's.
    """
    _refuse(arms, why_not_in_process)
    own = folder / setting.key
    return {arm.name: ArmLoop(setting, arm, own / arm.name).run(say) for arm in arms}


def simulate_with_service(
    setting: Setting, arms: Sequence[Arm], *, folder: Path, say: Say
) -> dict[str, list[DayLog]]:
    """The same over HTTP: each learned arm is a release of the pipeline with a service of its own.

    Raises:
        ConfigError: an arm cannot be a release.
        StartError, ServiceError: a service did not start, or stopped answering.
    """
    _refuse(arms, why_not_over_http)
    own = folder / f"{setting.key}-service"
    lived = {}
    for arm in arms:
        loop = ServiceLoop if arm.learns else ArmLoop
        lived[arm.name] = loop(setting, arm, own / arm.name).run(say)
    return lived


def _refuse(arms: Sequence[Arm], why_not: Callable[[Arm], str | None]) -> None:
    """Before any arm lives a day."""
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
    say: Say = print,
) -> dict[str, Any]:
    """The command's work: figures, and where the plots lie."""
    settings = Settings()
    folder = settings.home / "simulations"
    setting = open_setting(preset, days=days, seed=seed, schedule=schedule, cache=settings.cache)
    live = simulate_in_process if in_process else simulate_with_service
    lived = live(setting, arms, folder=folder, say=say)
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
    """One chart a figure, one line an arm; none for a figure that no day has yet."""
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
