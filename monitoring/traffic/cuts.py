"""Computes the figures of a set of requests, and cuts them by slice, source, position, arm, day."""

from collections.abc import Iterable, Mapping

import numpy as np

from monitoring.traffic.estimate import NOTHING, Estimate, UserSums
from monitoring.traffic.join import Traffic
from monitoring.traffic.measure import Measure
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import (
    WHOLE_MEASURES,
    category_coverages,
    large_categories,
    whole_estimate,
)
from shortlist import columns as c
from shortlist.config import ConfigError

REQUEST_CUTS = ("day", "release_id", "arm", "group", c.SURFACE, c.DEVICE)
SHOWN_CUTS = (c.SOURCE, c.POSITION, "category", "brand", "is_new")
EVENT_CUTS = ("day", c.EVENT_TYPE)
COVERAGE = "coverage/category="
"""Start of the name of a category's coverage: `coverage/category=drama`."""
EXPOSURE = (c.SOURCE, "category", "brand", "is_new")
"""Columns whose shares of the shown items are figures: `exposure/category=drama`."""
MAX_VALUES = 30
"""Largest number of values by which a column is cut; the most frequent ones are kept."""


class FigureError(ConfigError):
    """A figure or slice is unknown; the message lists the known ones."""


def figure(name: str, traffic: Traffic, *, where: str = "all") -> Estimate:
    """Compute one figure over the rows of a slice.

    Args:
        name: a name of MEASURES or WHOLE_MEASURES, `exposure/<column>=<value>`, or
            `coverage/category=<value>`.
        where: `all`, or `<column>=<value>` with a column of REQUEST_CUTS or SHOWN_CUTS.

    Raises:
        FigureError: the figure or the column is unknown, or the figure can't be cut by it.
    """
    if name.startswith("exposure/"):
        column, _, value = name.removeprefix("exposure/").partition("=")
        if column not in EXPOSURE:
            raise FigureError(f"figure '{name}': want exposure/ and one of {', '.join(EXPOSURE)}")
        traffic = _of_requests(traffic, where, name)
        flag = (traffic.shown[column].astype(str) == value).to_numpy(dtype=float)
        user = traffic.user_code[traffic.shown["request"].to_numpy()]
        return UserSums.of(user, flag, np.ones(len(flag))).estimate()
    if name.startswith(COVERAGE):
        part = _of_requests(traffic, where, name)
        value = category_coverages(part).get(name.removeprefix(COVERAGE), float("nan"))
        return Estimate(value, float("nan"), len(np.unique(part.user_code)), len(part.requests))
    if name in WHOLE_MEASURES:
        return whole_estimate(WHOLE_MEASURES[name], _of_requests(traffic, where, name))
    if name not in MEASURES:
        known = ", ".join([*MEASURES, *WHOLE_MEASURES, "exposure/<column>=<value>"])
        raise FigureError(f"figure '{name}' is unknown, want one of {known}")
    return user_sums(MEASURES[name], traffic, where=where).estimate()


def values_of(name: str, traffic: Traffic) -> list[str]:
    """Return the values that `*` stands for in `exposure/<column>=*` or `coverage/category=*`.

    Raises:
        FigureError: the name is none of these.
    """
    column = name.removeprefix("exposure/").removesuffix("=*")
    if name == COVERAGE + "*":
        return large_categories(traffic.catalogue)
    if name != f"exposure/{column}=*" or column not in EXPOSURE:
        raise FigureError(
            f"figure '{name}': want {COVERAGE}*, or exposure/<column>=* with one of"
            f" {', '.join(EXPOSURE)}"
        )
    return list(exposure(traffic, column))[:MAX_VALUES]


def user_sums(measure: Measure, traffic: Traffic, *, where: str = "all") -> UserSums:
    """Sum numerator and denominator of a measure by user, over the rows of a slice."""
    top, bottom = measure.columns(traffic)
    request = np.arange(len(traffic.requests))
    if measure.level == "shown":
        request = traffic.shown["request"].to_numpy()
    user = traffic.user_code[request]
    if measure.level == "event":
        user = traffic.events["user_code"].to_numpy(dtype=np.int64)
    if where != "all":
        column, _, value = where.partition("=")
        if column not in cuts_of(measure):
            raise FigureError(
                f"slice '{where}' of {measure.name}: want all, or one of"
                f" {', '.join(cuts_of(measure))} followed by =value"
            )
        if measure.level == "event":
            values = traffic.events[column].to_numpy()
        elif column in REQUEST_CUTS:
            values = traffic.requests[column].to_numpy()[request]
        else:
            values = traffic.shown[column].to_numpy()
        keep = values.astype(str) == value
        user, top, bottom = user[keep], top[keep], bottom[keep]
    sums = UserSums.of(user, top, bottom)
    if measure.per_user:
        return UserSums(sums.user, sums.top, np.ones(len(sums.user)))
    return sums


def cuts_of(measure: Measure) -> tuple[str, ...]:
    """Return the columns by which a measure can be cut."""
    if measure.level == "event":
        return EVENT_CUTS
    return REQUEST_CUTS + (SHOWN_CUTS if measure.level == "shown" else ())


def by(measure: Measure, traffic: Traffic, column: str) -> dict[str, Estimate]:
    """Return the figure for each of the most frequent values of a column."""
    frame = traffic.requests if column in REQUEST_CUTS else traffic.shown
    if measure.level == "event":
        frame = traffic.events
    counts = frame[column].astype(str).value_counts()
    values = sorted((str(name) for name in counts.index.tolist()[:MAX_VALUES]), key=_natural)
    return {
        value: user_sums(measure, traffic, where=f"{column}={value}").estimate() for value in values
    }


def overview(traffic: Traffic, *, names: Iterable[str] | None = None) -> dict[str, Estimate]:
    """Return all figures of all requests together."""
    wanted = [*MEASURES, *WHOLE_MEASURES] if names is None else list(names)
    if not len(traffic.requests):
        return dict.fromkeys(wanted, NOTHING)
    return {name: figure(name, traffic) for name in wanted}


def exposure(traffic: Traffic, column: str) -> Mapping[str, float]:
    """Return the share of the shown items with each value of a column, largest first."""
    shares = traffic.shown[column].astype(str).value_counts(normalize=True)
    return {str(name): float(share) for name, share in shares.items()}


def all_cuts(traffic: Traffic) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Return {measure: {column: {value: estimate}}} for every column that the measure allows."""
    out: dict[str, dict[str, dict[str, Estimate]]] = {}
    for name, measure in MEASURES.items():
        out[name] = {column: by(measure, traffic, column) for column in cuts_of(measure)}
    return out


def _of_requests(traffic: Traffic, where: str, name: str) -> Traffic:
    if where == "all":
        return traffic
    column, _, value = where.partition("=")
    if column not in REQUEST_CUTS:
        raise FigureError(
            f"slice '{where}' of {name}: want all, or one of {', '.join(REQUEST_CUTS)}, =value"
        )
    return traffic.pick((traffic.requests[column].astype(str) == value).to_numpy())


def _natural(value: str) -> tuple[int, float, str]:
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value
