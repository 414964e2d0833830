"""Creates and runs the stored Great Expectations checkpoint of each suite."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.validation.docs import SITE, run_name
from shortlist.config import ConfigError

NEEDED = "SUMMARY"
"""Default result format of Great Expectations. It has the counts of unexpected values, which
findings need.
"""


@dataclass(frozen=True)
class Outcome:
    """Results of all validation definitions of a suite's checkpoint."""

    ours: Any
    """Result of the definition that Shortlist generated. It judges the batch's prepared rows."""
    others: dict[str, Any]
    """{definition added by a user: its result, or the error that it raised}."""


def stored_checkpoint(context: Any, source: Any, suite: Any) -> Any:
    """Return the stored checkpoint of a suite; create it and its definition if it doesn't exist.

    Raises:
        ConfigError: the file of the checkpoint, or of its definition or suite, can't be read.
    """
    import great_expectations as gx
    from great_expectations.checkpoint.actions import UpdateDataDocsAction

    name = suite.name
    if (stored := _stored(context, "checkpoints", name)) is not None:
        return stored
    actions: list[Any] = [UpdateDataDocsAction(name="update_data_docs", site_names=[SITE])]
    definitions = [_definition(context, source, suite)]
    return context.checkpoints.add(
        gx.Checkpoint(name=name, validation_definitions=definitions, actions=actions)
    )


def _stored(context: Any, folder: str, name: str) -> Any:
    path = Path(context.root_directory) / folder / f"{name}.json"
    if not path.is_file():
        return None
    try:
        return getattr(context, folder).get(name)
    except Exception as error:  # Great Expectations raises many different types
        raise ConfigError(
            f"{path}: Great Expectations cannot read it: {error}; repair it, or delete it and"
            " Shortlist writes a new one"
        ) from None


def _definition(context: Any, source: Any, suite: Any) -> Any:
    import great_expectations as gx

    name = suite.name
    if (stored := _stored(context, "validation_definitions", name)) is not None:
        return stored
    if name in source.get_asset_names():
        asset = source.get_asset(name)
    else:
        asset = source.add_table_asset(name, table_name=f"{name}_rows")
    rows = [definition for definition in asset.batch_definitions if definition.name == "rows"]
    data = rows[0] if rows else asset.add_batch_definition_whole_table("rows")
    return context.validation_definitions.add(
        gx.ValidationDefinition(name=name, data=data, suite=suite)
    )


def run_checkpoint(context: Any, source: Any, suite: Any, *, batch_id: str) -> Outcome:
    """Run the validation definitions and actions of a suite's checkpoint.

    `Checkpoint.run` is not used: it accepts no result format and refuses a checkpoint that differs
    from the stored one. The definition that Shortlist generated is run even if a user removed it
    from the checkpoint.

    Raises:
        ConfigError: Great Expectations can't run the generated definition or store its results.
    """
    import great_expectations as gx
    from great_expectations.checkpoint.checkpoint import CheckpointResult
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    checkpoint = stored_checkpoint(context, source, suite)
    definitions = {part.name: part for part in checkpoint.validation_definitions}
    if suite.name not in definitions:
        definitions[suite.name] = _definition(context, source, suite)
    run_id = gx.RunIdentifier(run_name=run_name(batch_id))
    results: dict[str, Any] = {}
    for name, definition in definitions.items():
        wanted = checkpoint.result_format
        wanted = with_counts(wanted) if name == suite.name else wanted
        try:
            results[name] = definition.run(
                checkpoint_id=checkpoint.id, result_format=wanted, run_id=run_id
            )
        except Exception as error:  # many types, such as for a missing data source of a user
            if name == suite.name:
                raise ConfigError(
                    f"great_expectations, suite '{name}': no results: {error} (see the limits in"
                    " docs/validation.md)"
                ) from error
            results[name] = error
    stored = {
        ValidationResultIdentifier(
            expectation_suite_identifier=ExpectationSuiteIdentifier(definitions[name].suite.name),
            run_id=run_id,
            batch_identifier=result.batch_id,
        ): result
        for name, result in results.items()
        if not isinstance(result, Exception)
    }
    checkpoint._run_actions(
        CheckpointResult(run_id=run_id, run_results=stored, checkpoint_config=checkpoint)
    )
    return Outcome(ours=results.pop(suite.name), others=results)


def with_counts(result_format: Any) -> Any:
    """Return the result format, or NEEDED if the given one has no counts."""
    format_name = result_format
    if isinstance(result_format, dict):
        format_name = result_format.get("result_format")
    return NEEDED if format_name == "BOOLEAN_ONLY" else result_format
