"""The page of all metrics: of evaluation, of the service and of monitoring."""

from collections.abc import Callable, Iterator

from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from cli.reference.markdown import first_paragraph, table, text
from monitoring.prometheus import metrics_text
from services import metrics as service
from shortlist import metrics
from shortlist.behaviour.value import OUTCOMES

QUALITY: dict[str, Callable] = {
    "ndcg@k": metrics.ndcg,
    "recall@k": metrics.recall,
    "precision@k": metrics.precision,
    "mrr@k": metrics.mrr,
    "coverage@k": metrics.coverage,
    "diversity@k": metrics.intra_list_diversity,
    "novelty@k": metrics.novelty,
    "popularity_bias@k": metrics.popularity_bias,
}
"""Key in `metrics` of an evaluation, with k for its number -> the function that computes it."""


def metrics_page() -> str:
    """Return the content of docs/reference/metrics.md."""
    quality = [
        [f"`{name}`", first_paragraph(function.__doc__).removeprefix("Return ")]
        for name, function in QUALITY.items()
    ]
    served = [
        [f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), text(meaning)]
        for name, kind, labels, meaning in service_metrics()
    ]
    monitored = [[f"`{name}`", text(meaning)] for name, meaning in monitoring_metrics()]
    return f"""# All metrics

Made from the code by `python -m cli.reference`. Figures of live traffic, which guardrails name, are
on [their own page](figures.md).

## Quality of lists
`shortlist evaluate` writes them to `evaluation.json` for each method, with intervals. Means are per
user, then over users. Definitions: `shortlist/metrics.py`.

{table(["metric", "meaning"], quality)}
With `[value]`, `value@10` is the value of the first ten items ([value](../value.md)), from the
outcomes {", ".join(f"`{name}`" for name in OUTCOMES)}.

## The service
At `/metrics` of the service, over all workers, beside BentoML's own.

{table(["metric", "type", "labels", "meaning"], served)}
## Monitoring
`shortlist monitor` writes them to `<home>/reports/metrics.prom`.

{table(["metric", "meaning"], monitored)}"""


def service_metrics() -> Iterator[tuple[str, str, tuple[str, ...], str]]:
    """Yield name, type, labels and meaning of each Prometheus metric of the service."""
    for metric in vars(service).values():
        if isinstance(metric, MetricWrapperBase):
            found = next(iter(metric.describe()))
            name = f"{found.name}_total" if isinstance(metric, Counter) else found.name
            yield name, found.type, metric._labelnames, found.documentation


def monitoring_metrics() -> Iterator[tuple[str, str]]:
    """Yield name and meaning of each metric in metrics.prom."""
    for line in metrics_text({}, [], at=0).splitlines():
        if line.startswith("# HELP "):
            name, _, meaning = line.removeprefix("# HELP ").partition(" ")
            yield name, meaning
