"""Generates docs/metrics.md: formula and unit of every figure.

To update the page: `python -m monitoring.traffic.reference > docs/metrics.md`. A test checks that
it is up to date.
"""

from monitoring.traffic.join import Delays
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.whole import WHOLE_MEASURES

OPERATION = {
    "data_age_hours": ("age of the newest event", "hours", "now - time of the newest event"),
    "item_features_age_hours": ("age of the item features", "hours", "now - as_of of the pack"),
    "release_age_days": ("age of the release's data", "days", "now - end of its training data"),
    "error_rate": (
        "failed requests",
        "share",
        "5xx answers of /recommend / answers, since the last check, from the service's /metrics",
    ),
    "log_dropped": (
        "dropped log lines",
        "count",
        "lines of the serving log that were not written since the last check",
    ),
    "skew_exact_share": (
        "skew",
        "share",
        "served feature vectors equal to the recomputed ones / compared vectors (`shortlist skew`)",
    ),
    "event_drift_share": (
        "drift of events",
        "share",
        "varying columns with a distance >= 0.1 / varying columns (Evidently)",
    ),
    "request_drift_share": ("drift of requests", "share", "as event_drift_share"),
    "feature_drift_share": ("drift of the ranking features", "share", "as event_drift_share"),
    "score_drift": (
        "drift of scores",
        "standard deviations",
        "Wasserstein distance / standard deviation of the reference",
    ),
    "source_mix_drift": ("drift of the sources' shares", "0 to 0.83", "Jensen-Shannon distance"),
    "embedding_drift": (
        "drift of the shown items' vectors",
        "0 to 2",
        "1 - cosine of the mean category vectors of both windows",
    ),
}
"""Figures without requests behind them: name -> (title, unit, formula)."""
GOOD = {"high": "higher is better", "low": "lower is better", "": ""}


def reference() -> str:
    """Return the content of docs/metrics.md."""
    delays = Delays()
    lines = [
        "# Figures of live traffic",
        "",
        "Made by `python -m monitoring.traffic.reference` from the definitions. A guardrail names a"
        " figure of this page",
        "([monitoring.md](monitoring.md)). `waits` is how long a request stays open:"
        f" `click` {delays.click:g} h, `outcome` {delays.outcome:g} h,",
        f"`product_return` {delays.product_return:g} h (`[delays]` in configs/guardrails.toml), or"
        " whole days.",
        "Open requests count neither as hits nor as misses.",
        "",
        "## Ratios",
        "Numerator and denominator are summed over all rows, with standard errors over users. Each"
        " can be cut by `day`,",
        "`release_id`, `arm`, `group` (new, light, regular users), `surface` and `device`; those"
        " per shown item also by",
        "`source`, `position`, `category`, `brand` and `is_new`.",
        "",
        "| figure | meaning | formula | unit | waits | better |",
        "|---|---|---|---|---|---|",
    ]
    for measure in MEASURES.values():
        waits = f"{measure.days} days" if measure.days else measure.delay or "-"
        lines.append(
            f"| `{measure.name}` | {measure.title} | {measure.formula} | {measure.unit} | {waits} |"
            f" {GOOD[measure.good]} |"
        )
    lines += [
        "",
        "## Figures over all lists",
        "Standard errors come from a jackknife over 20 groups of users.",
        "",
        "| figure | meaning | formula | unit | better |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{measure.name}` | {measure.title} | {measure.formula} | {measure.unit} |"
        f" {GOOD[measure.good]} |"
        for measure in WHOLE_MEASURES.values()
    ]
    lines += [
        "| `exposure/<column>=<value>` | exposure | shown items with this source, category, brand"
        " or newness / shown items | share | |",
        "",
        "## Operation, drift and skew",
        "",
        "| figure | meaning | formula | unit |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{name}` | {title} | {formula} | {unit} |"
        for name, (title, unit, formula) in OPERATION.items()
    ]
    lines += [
        "",
        "## Quality against the test lists",
        "`shortlist monitor` also computes `ndcg@10`, `recall@10`, `precision@10`, `mrr@10`,"
        " `replayed_hit_rate@10`,",
        "`replayed_hit_rate_same_mix@10`, `diversity@10`, `coverage@10`, `novelty@10`,"
        " `popularity_bias@10` and",
        "`exposure_gini@10` for live lists and for the release's lists of the test window"
        ' (`compare = "reference"`).',
        "Definitions: `shortlist/metrics.py`.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
