"""Writes the reports of a monitoring run: Evidently pages and figures.

The output is one HTML file per report, `index.html` with links, and `report.json`. Each report can
also be added to a local Evidently workspace (`evidently ui --workspace <folder>`). Importing
Evidently takes 10 to 18 s, so it is imported in a function. Rows are sampled, so that all reports
together take less time than the import.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from monitoring.columns import fallen
from monitoring.figures import all_figures, drift_figures, latency_figures
from monitoring.pages import index_page
from monitoring.tables import Tables
from monitoring.windows import SharedData, Window, slates_of
from shortlist.files.plain_json import finite, write_json

DRAWN_FEATURES = 12
"""Number of features with a chart; a chart takes 0.1 s. The drift figures cover all features."""
PROJECT = "shortlist"


def write_reports(
    current: Window,
    reference: Window,
    *,
    shared: SharedData,
    out: Path,
    workspace: Path | None = None,
    about: dict[str, Any] | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Write all reports of one monitoring run into the folder `out`.

    Args:
        current: serving log and interactions of the monitored period.
        reference: the lists that the release made for the test window, with its interactions.
        workspace: folder of a local Evidently workspace to add the runs to; None adds none.
        about: description of the run for the index page (release, dataset, windows).

    Returns:
        {"figures", "drifted", "columns", "tests", "reports", "index", "seconds"}; the same is in
        `out/report.json`. `tests` are the results of Evidently's tests, `columns` the columns of
        each group that are constant or grow by nature, and so are left out of drift.

    Raises:
        MonitorError, ContractError: a window is empty or violates its contract.
    """
    started = time.perf_counter()
    current, reference = current.checked(), reference.checked()
    rng = np.random.default_rng(seed)
    now, before = slates_of(current, shared), slates_of(reference, shared)
    tables = Tables(current, reference, now, before, shared, rng)
    drifts = tables.drifts()
    figures = all_figures(now, before, shared, rng=rng) | latency_figures(current.latency_ms)
    columns = tables.sorted_columns()
    figures |= drift_figures(drifts, {name: column.varying for name, column in columns.items()})
    current_features, reference_features = tables.features
    growing = columns["features"].growing
    falls = fallen(current_features, reference_features, growing)
    out.mkdir(parents=True, exist_ok=True)
    reports, tests = evidently_reports(tables, drifts, out=out, workspace=workspace)
    content: dict[str, Any] = {
        "figures": {name: _rounded(asdict(figure)) for name, figure in figures.items()},
        "drifted": {
            group: _rounded(dict(sorted(values.items(), key=lambda kv: -np.nan_to_num(kv[1]))))
            for group, values in drifts.items()
        },
        "columns": {
            name: {"constant": field.constant, "growing": field.growing, "empty": field.empty}
            for name, field in columns.items()
        },
        "fallen": _rounded(falls),
        "tests": tests,
        "reports": reports,
        "about": about or {},
        "seconds": round(time.perf_counter() - started, 1),
    }
    index = out / "index.html"
    index.write_text(index_page(content), encoding="utf-8")
    content["index"] = str(index)
    write_json(out / "report.json", content)
    return content


def evidently_reports(
    tables: Tables, drifts: dict[str, dict[str, float]], *, out: Path, workspace: Path | None
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Run and save all reports.

    Returns:
        [{"file", "title", "says"}] in the order of the index, and the results of all tests.
    """
    from monitoring.evidently_runs import add_to_workspace, runs, test_results

    done, tests = [], []
    with np.errstate(all="ignore"):  # Evidently correlates constant columns, which warns
        snapshots = runs(tables, drifts, drawn_features=DRAWN_FEATURES)
    for name, (title, says, snapshot) in snapshots.items():
        snapshot.save_html(str(out / f"{name}.html"))
        tests += test_results(name, snapshot)
        done.append({"file": f"{name}.html", "title": title, "says": says})
    if workspace is not None:
        add_to_workspace(
            workspace, PROJECT, {title: snapshot for title, _, snapshot in snapshots.values()}
        )
    return done, tests


def _rounded(values: dict[str, float]) -> dict[str, float | None]:
    return finite(
        {key: None if value is None else round(float(value), 6) for key, value in values.items()}
    )
