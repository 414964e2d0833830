"""The page of all figures of live traffic, and of the guardrails that are shipped with limits."""

from cli.reference.markdown import ROOT, table, text
from monitoring.board.config import Guardrail, load_board
from monitoring.traffic.join import Delays
from monitoring.traffic.measures import MEASURES
from monitoring.traffic.operation import OPERATION
from monitoring.traffic.whole import WHOLE_MEASURES

GOOD = {"high": "higher is better", "low": "lower is better", "": ""}
COMPARED = {
    "previous": "the four windows before",
    "reference": "the test lists",
    "champion": "the champion",
    "holdout": "the holdout",
}
EXPOSURE = (
    "`exposure/<column>=<value>`",
    "exposure",
    "shown items with this source, category, brand or newness / shown items",
    "share",
    "",
)
CATEGORY_COVERAGE = (
    "`coverage/category=<value>`",
    "coverage of a category",
    "coverage of the items of a first category with at least 50 items / coverage of all items",
    "ratio",
    "",
)


def figures_page() -> str:
    """Return the content of docs/reference/figures.md."""
    delays = Delays()
    ratios = [
        [
            f"`{one.name}`",
            one.title,
            text(one.formula),
            one.unit,
            f"{one.days} days" if one.days else one.delay or "-",
            GOOD[one.good],
        ]
        for one in MEASURES.values()
    ]
    whole = [
        [f"`{one.name}`", one.title, text(one.formula), one.unit, GOOD[one.good]]
        for one in WHOLE_MEASURES.values()
    ]
    operation = [
        [f"`{name}`", title, text(formula), unit]
        for name, (title, unit, formula) in OPERATION.items()
    ]
    file = load_board(ROOT / "configs/guardrails.toml")
    causes = [[f"`{one.family}`", ", ".join(one.signs), text(one.meaning)] for one in file.cause]
    rows = [
        [
            f"[{one.name}](../monitoring.md#{one.runbook})",
            f"`{one.figure}`",
            _limit(one),
            f"`{one.action}`" if one.alarm else "none",
            text(one.meaning),
        ]
        for one in file.guardrail
    ]
    return f"""# Figures of live traffic, and guardrails

Made from the definitions by `python -m cli.reference`. A guardrail names a figure of this page
([monitoring](../monitoring.md)). `waits` is how long a request stays open: `click`
{delays.click:g} h, `outcome` {delays.outcome:g} h, `product_return` {delays.product_return:g} h
(`[delays]` in configs/guardrails.toml), or whole days. Open requests count neither as hits nor as
misses.

## Ratios
Numerator and denominator are summed over all rows, with standard errors over users. Each can be cut
by `day`, `release_id`, `arm`, `group` (new, light, regular users), `surface` and `device`; those
per shown item also by `source`, `position`, `category`, `brand` and `is_new`. Figures of events are
cut by `day` and `event_type` only.

{table(["figure", "meaning", "formula", "unit", "waits", "better"], ratios)}
## Figures over all lists
Standard errors come from a jackknife over 20 groups of users.

{table(["figure", "meaning", "formula", "unit", "better"], [*whole, EXPOSURE, CATEGORY_COVERAGE])}
## Operation, drift and skew

{table(["figure", "meaning", "formula", "unit"], operation)}
## Quality against the test lists
`shortlist monitor` also computes `ndcg@10`, `recall@10`, `precision@10`, `mrr@10`,
`replayed_hit_rate@10`, `replayed_hit_rate_same_mix@10`, `diversity@10`, `coverage@10`,
`novelty@10`, `popularity_bias@10` and `exposure_gini@10` for live lists and for the release's lists
of the test window (`compare = "reference"`). Definitions: [metrics](metrics.md).

## Guardrails
Those of `configs/guardrails.toml`; each name leads to its entry in the runbook.

{table(["guardrail", "figure", "alarm", "action", "why"], rows)}
## Probable causes
The first row whose signs are all beyond their limits is named on the morning page. A sign is an
alarm, or a guardrail with p < 0.001 of a single look.

{table(["family", "signs", "meaning"], causes)}"""


def _limit(row: Guardrail) -> str:
    """Return from which value or change on a guardrail gives an alarm."""
    side = "below" if row.bad == "low" else "above"
    if row.compare == "absolute":
        return f"{side} {row.limit:g}"
    distance = f"{abs(row.limit):.1%} ".replace(".0%", "%") if row.limit else ""
    least = f", at least by {row.least_change:g}" if row.least_change else ""
    return f"{distance}{side} {COMPARED[row.compare]}{least}"
