"""Great Expectations suites, built from the contracts and the run's own limits.

A row expectation names the rows that break it: they go to quarantine. A batch expectation judges
the table as a whole: when it fails the run stops. `meta.action` says which is which.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

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
    detail: str


class Validator:
    """An ephemeral GX context with one Data Docs site on disk."""

    def __init__(self, docs: Path):
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        self.context = gx.get_context(mode="ephemeral")
        self.context.variables.progress_bars = ProgressBarsConfig(globally=False)
        self.context.add_data_docs_site(
            SITE,
            {
                "class_name": "SiteBuilder",
                "show_how_to_buttons": False,
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs.absolute()),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
        self.source = self.context.data_sources.add_pandas("lake")

    def run(self, table: str, frame: pd.DataFrame, expectations: list[Any]) -> list[Finding]:
        """Validate one table, write its Data Docs, and return what is wrong."""
        import great_expectations as gx

        asset = self.source.add_dataframe_asset(table)
        suite = self.context.suites.add(gx.ExpectationSuite(table, expectations=expectations))
        definition = self.context.validation_definitions.add(
            gx.ValidationDefinition(
                name=table, data=asset.add_batch_definition_whole_dataframe("batch"), suite=suite
            )
        )
        checkpoint = self.context.checkpoints.add(
            gx.Checkpoint(
                name=table,
                validation_definitions=[definition],
                actions=[gx.checkpoint.UpdateDataDocsAction(name="docs", site_names=[SITE])],
                result_format={"result_format": "COMPLETE", "return_unexpected_index_query": False},
            )
        )
        outcome = checkpoint.run(batch_parameters={"dataframe": frame})
        return [
            _finding(table, verdict)
            for result in outcome.run_results.values()
            for verdict in result.results
            if not verdict.success
        ]


def _finding(table: str, verdict: Any) -> Finding:
    config = verdict.expectation_config
    column = config.kwargs.get("column")
    name = f"{config.type}({column})" if column else config.type
    if verdict.exception_info.get("raised_exception"):
        return Finding(table, name, BATCH, (), str(verdict.exception_info["exception_message"]))
    rows = tuple(int(i) for i in verdict.result.get("unexpected_index_list") or ())
    limits = {
        key: value
        for key, value in config.kwargs.items()
        if key in ("min_value", "max_value") and value is not None
    }
    seen = verdict.result.get("observed_value", verdict.result.get("partial_unexpected_list"))
    detail = f"{config.notes or name}: found {str(seen)[:120]}"
    if limits:
        detail += ", want " + ", ".join(f"{key} {value}" for key, value in limits.items())
    return Finding(table, name, config.meta["action"], rows, detail)


def interaction_expectations(
    *,
    earliest: pd.Timestamp,
    now: pd.Timestamp,
    rating_range: tuple[float, float],
    rows: tuple[int, int | None],
    max_age: pd.Timedelta | None,
) -> list[Any]:
    """Expectations on interactions; `rating`, `item_is_known`, `user_is_known` are added."""
    from great_expectations import expectations as gxe

    required = [field.name for field in INTERACTIONS if not field.nullable]
    expectations: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(
            min_value=rows[0], max_value=rows[1], meta={"action": BATCH}, notes="volume"
        ),
        gxe.ExpectColumnValuesToBeOfType(
            column=c.VALUE, type_="float64", meta={"action": BATCH}, notes="type of value"
        ),
        *(_not_null(gxe, name) for name in required),
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


def item_expectations(*, earliest: pd.Timestamp, now: pd.Timestamp) -> list[Any]:
    """Expectations on the catalogue."""
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"action": BATCH}, notes="volume"),
        *(_not_null(gxe, field.name) for field in ITEMS if not field.nullable),
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
    from great_expectations import expectations as gxe

    return [
        gxe.ExpectTableRowCountToBeBetween(min_value=1, meta={"action": BATCH}, notes="volume"),
        *(_not_null(gxe, field.name) for field in USERS if not field.nullable),
        gxe.ExpectColumnValuesToBeUnique(
            column=c.USER_ID, meta={"action": ROW}, notes="a user once"
        ),
    ]


def _not_null(gxe: Any, column: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeNull(
        column=column, meta={"action": ROW}, notes="required by the contract"
    )
