"""Great Expectations suites, built from the contracts and the run's own limits.

A row expectation names the rows that break it: they go to quarantine. A batch expectation judges
the table as a whole: when it fails the run stops. `meta.action` says which is which.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from flows.validate_docs import Judged, finish_docs
from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES, INTERACTIONS, ITEMS, USERS

ROW, BATCH = "quarantine", "stop"
SITE = "shortlist"


@dataclass(frozen=True)
class Finding:
    """One expectation that was not met."""

    table: str
    expectation: str
    action: str
    rows: tuple[int, ...]  # positions in the table; empty for a batch expectation
    reason: str
    figures: str

    def __str__(self) -> str:
        return f"{self.table}: {self.reason} ({self.expectation}: {self.figures})"


class Validator:
    """An ephemeral GX context with one Data Docs site on disk."""

    def __init__(self, docs: Path):
        import great_expectations as gx
        from great_expectations.data_context.types import base

        site = {
            "class_name": "SiteBuilder",
            "show_how_to_buttons": False,
            "store_backend": {
                "class_name": "TupleFilesystemStoreBackend",
                "base_directory": str(docs.absolute()),
            },
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        }
        self.context = gx.get_context(
            mode="ephemeral",
            project_config=base.DataContextConfig(
                store_backend_defaults=base.InMemoryStoreBackendDefaults(),
                data_docs_sites={SITE: site},
                progress_bars=base.ProgressBarsConfig(globally=False),
                analytics_enabled=False,
            ),
        )
        self.source = self.context.data_sources.add_pandas("batch")
        self.docs = docs
        self.judged: list[Judged] = []

    def run(
        self, table: str, frame: pd.DataFrame, expectations: list[Any], *, batch_id: str
    ) -> list[Finding]:
        """Validate one table and return what is wrong with it."""
        import great_expectations as gx

        asset = self.source.add_dataframe_asset(table)
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(
                name=table,
                data=asset.add_batch_definition_whole_dataframe("whole"),
                suite=self.context.suites.add(
                    gx.ExpectationSuite(table, expectations=expectations)
                ),
            )
        )
        outcome = definition.run(
            batch_parameters={"dataframe": frame},
            result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            run_id=gx.RunIdentifier(run_name=batch_id),
        )
        findings = [_finding(table, one) for one in outcome.results if not one.success]
        self.judged.append(Judged(table, len(frame), len(expectations), len(findings)))
        return findings

    def write_docs(self, batch_id: str) -> Path:
        """Write the Data Docs of everything run so far: once, since a build takes a second.

        Returns:
            the index page.
        """
        self.context.build_data_docs(site_names=[SITE])
        return finish_docs(self.docs, batch_id, self.judged)


def _finding(table: str, verdict: Any) -> Finding:
    config = verdict.expectation_config
    column = config.kwargs.get("column")
    name = f"{config.type}({column})" if column else config.type
    note, action = config.notes or name, config.meta["action"]
    rows = tuple(int(i) for i in verdict.result.get("unexpected_index_list") or ())
    if action == ROW and not rows:
        # An expectation that raised names no rows; to let its rows pass would be to skip it.
        return Finding(table, name, BATCH, (), note, f"no result: {_exceptions(verdict)}")
    limits = "".join(
        f", want {words} {config.kwargs[key]}"
        for key, words in (("min_value", "at least"), ("max_value", "at most"))
        if config.kwargs.get(key) is not None
    )
    seen = verdict.result.get("observed_value", verdict.result.get("partial_unexpected_list"))
    return Finding(table, name, action, rows, note, f"found {str(seen)[:120]}{limits}")


def _exceptions(verdict: Any) -> str:
    """GX keys them by metric, or not at all."""
    info = verdict.exception_info
    parts = [info, *(part for part in info.values() if isinstance(part, dict))]
    messages = {str(part["exception_message"]) for part in parts if part.get("exception_message")}
    return "; ".join(sorted(messages)) or "no rows named"


def interaction_expectations(
    *,
    earliest: datetime,
    now: datetime,
    rating_range: tuple[float, float],
    rows: tuple[int, int | None],
    max_age: timedelta | None,
) -> list[Any]:
    """Expectations on interactions; `rating`, `item_is_known`, `user_is_known` are added."""
    gxe = _vocabulary()

    required = [field.name for field in INTERACTIONS if not field.nullable]
    expectations: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=rows[0], max_value=rows[1], meta={"action": BATCH}, notes="volume"
        ),
        gxe.ExpectColumnValuesToBeOfType(
            column=c.VALUE, type_="float64", meta={"action": BATCH}, notes="type of value"
        ),
        *(_not_null(gxe, name) for name in required),
        *(_text(gxe, name) for name in (c.EVENT_ID, c.USER_ID, c.ITEM_ID)),
        gxe.ExpectColumnValuesToBeUnique(
            column=c.EVENT_ID, meta={"action": ROW}, notes="an event once"
        ),
        gxe.ExpectColumnValuesToBeInSet(
            column=c.EVENT_TYPE,
            value_set=list(EVENT_TYPES),
            meta={"action": ROW},
            notes="event types of the contract",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column=c.EVENT_TIMESTAMP,
            min_value=earliest,
            max_value=now,
            meta={"action": ROW},
            notes="neither before the earliest time nor in the future",
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column="rating",
            min_value=rating_range[0],
            max_value=rating_range[1],
            meta={"action": ROW},
            notes="range of ratings",
        ),
        *(
            gxe.ExpectColumnValuesToBeInSet(
                column=f"{kind}_is_known",
                value_set=["yes"],
                meta={"action": ROW},
                notes=f"the {kind} of an event is in the {kind}s table",
            )
            for kind in ("item", "user")
        ),
    ]
    if max_age is not None:
        expectations.append(
            gxe.ExpectColumnMaxToBeBetween(
                column=c.EVENT_TIMESTAMP,
                min_value=now - max_age,
                meta={"action": BATCH},
                notes="freshness against the data's own clock",
            )
        )
    return expectations


def item_expectations(*, earliest: datetime, now: datetime) -> list[Any]:
    """Expectations on the catalogue."""
    gxe = _vocabulary()

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"action": BATCH}, notes="volume"),
        *(_not_null(gxe, field.name) for field in ITEMS if not field.nullable),
        _text(gxe, c.ITEM_ID),
        _not_empty(gxe, c.ITEM_ID),
        gxe.ExpectColumnValuesToBeUnique(
            column=c.ITEM_ID, meta={"action": ROW}, notes="an item once"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column=c.PRICE, min_value=0, meta={"action": ROW}, notes="prices are not negative"
        ),
        gxe.ExpectColumnValuesToBeBetween(
            column=c.PUBLISHED_AT,
            min_value=earliest,
            max_value=now,
            meta={"action": ROW},
            notes="published in the past",
        ),
    ]


def user_expectations() -> list[Any]:
    """Expectations on users."""
    gxe = _vocabulary()

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"action": BATCH}, notes="volume"),
        *(_not_null(gxe, field.name) for field in USERS if not field.nullable),
        _text(gxe, c.USER_ID),
        _not_empty(gxe, c.USER_ID),
        gxe.ExpectColumnValuesToBeUnique(
            column=c.USER_ID, meta={"action": ROW}, notes="a user once"
        ),
    ]


def _vocabulary() -> Any:
    """GX's expectation classes, imported late: it takes ten seconds."""
    from great_expectations import expectations

    return expectations


def _not_null(gxe: Any, column: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeNull(
        column=column, meta={"action": ROW}, notes="required by the contract"
    )


def _text(gxe: Any, column: str) -> Any:
    return gxe.ExpectColumnValuesToBeOfType(
        column=column, type_="str", meta={"action": ROW}, notes="ids are text"
    )


def _not_empty(gxe: Any, column: str) -> Any:
    return gxe.ExpectColumnValueLengthsToBeBetween(
        column=column, min_value=1, max_value=256, meta={"action": ROW}, notes="an id is not empty"
    )
