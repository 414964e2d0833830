"""Rules on the rows of the table `interactions`."""

from datetime import UTC, datetime

from shortlist import columns as c
from shortlist.contracts import EVENT_TYPES, MAX_VALUE, MEASURED
from shortlist.ids import MAX_EVENT_ID
from shortlist.lake.engine import quoted
from shortlist.moments import TIME_UNITS
from shortlist.validation.checks import length, none_of, one_of, within
from shortlist.validation.config import ValidateConfig
from shortlist.validation.rules import (
    Rule,
    derived,
    fault,
    ids,
    item_required,
    operation_known,
    required,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
YEAR_2100 = datetime(2100, 1, 1, tzinfo=UTC)


def interaction_rules(config: ValidateConfig, *, now: datetime, earliest: datetime) -> list[Rule]:
    """Return the rules on events.

    Args:
        now: later event times are invalid.
        earliest: earlier event times are invalid.
    """
    table = "interactions"
    return [
        *required(table),
        item_required(),
        *ids(table, c.USER_ID),
        *ids(table, c.ITEM_ID),
        fault(table, "line.json", "the line is no JSON object"),
        fault(table, "value.number", "value is no number; want one like 4.5"),
        fault(
            table,
            "position.number",
            "position is no whole number; want the place in the list, from 1",
        ),
        Rule(
            table,
            "event_id.length",
            length(c.EVENT_ID, None, MAX_EVENT_ID),
            f"event_id: want at most {MAX_EVENT_ID} characters",
        ),
        Rule(
            table,
            "event_type.known",
            one_of(c.EVENT_TYPE, EVENT_TYPES),
            f"event type is unknown; want one of {', '.join(EVENT_TYPES)}",
        ),
        *_times(now=now, earliest=earliest),
        *_values(config),
        Rule(
            table,
            "position.not_negative",
            within(c.POSITION, 0),
            "position is negative; want the place in the list, from 1",
        ),
        *(
            Rule(
                table,
                f"{column}.length",
                length(column, None, config.max_text),
                f"{column} is too long; want at most {config.max_text:,} characters (max_text)",
            )
            for column in (c.TEXT, c.QUERY)
        ),
        operation_known(table),
        derived(
            table,
            "operation.target",
            "missing_target",
            f"CASE WHEN operation_misses THEN {c.EVENT_ID} END",
            "the event to correct or delete doesn't exist; want the event_id of an existing one",
        ),
        derived(
            table,
            "event_id.one_content",
            "ambiguous_event_id",
            f"CASE WHEN id_conflict THEN {c.EVENT_ID} END",
            "the same event_id is there twice with different content; want one id for each event",
        ),
        derived(
            table,
            "item_id.known",
            "unknown_item_id",
            f"CASE WHEN NOT item_is_known THEN {c.ITEM_ID} END",
            "item_id is in neither catalogue nor batch; want an id of the items table",
        ),
        derived(
            table,
            "user_id.known",
            "unknown_user_id",
            f"CASE WHEN NOT user_is_known THEN {c.USER_ID} END",
            "user_id is in neither the users table nor the batch; want an id of the users table",
        ),
        derived(
            table,
            "user_id.burst",
            "user_id_in_burst",
            f"CASE WHEN in_burst THEN {c.USER_ID} END",
            f"more than {config.burst_per_minute} events of one user within a minute: a bot?",
            action="warn",
        ),
    ]


def _times(*, now: datetime, earliest: datetime) -> list[Rule]:
    table, first = "interactions", min(earliest, EPOCH)
    zero = f"{c.EVENT_TIMESTAMP} = TIMESTAMPTZ '{EPOCH.isoformat()}'"
    named = f"{c.EVENT_TIMESTAMP} < TIMESTAMPTZ '{first.isoformat()}' OR {zero}"
    named += f" OR {c.EVENT_TIMESTAMP} >= TIMESTAMPTZ '{YEAR_2100.isoformat()}'"
    return [
        fault(
            table,
            "event_timestamp.readable",
            f"event_timestamp is no time of the mapping's timestamp_unit ({', '.join(TIME_UNITS)}"
            " or a pattern): another unit?",
        ),
        Rule(
            table,
            "event_timestamp.range",
            # On the replay clock `now` is the newest event's time, which may be before `earliest`.
            within("plausible_event_timestamp", earliest, max(earliest, now)),
            f"event_timestamp: want from {earliest:%Y-%m-%d} to now ({now:%Y-%m-%d %H:%M} UTC)",
            f"CASE WHEN NOT ({named}) THEN {c.EVENT_TIMESTAMP} END",
        ),
        derived(
            table,
            "event_timestamp.epoch_zero",
            "event_timestamp_zero",
            f"CASE WHEN {zero} THEN {c.EVENT_TIMESTAMP} END",
            "event_timestamp is 0 (1970-01-01 00:00): a missing time",
        ),
        Rule(
            table,
            "event_timestamp.negative",
            within(c.EVENT_TIMESTAMP, first),
            "event_timestamp is negative (before 1970): a missing time or a wrong unit? For an old"
            " log, set validation.earliest",
        ),
        Rule(
            table,
            "event_timestamp.beyond_2100",
            within(c.EVENT_TIMESTAMP, below=YEAR_2100),
            "event_timestamp is beyond the year 2100: a wrong unit?",
        ),
    ]


def _values(config: ValidateConfig) -> list[Rule]:
    table, (low, high) = "interactions", config.rating_range
    is_rating = f"{c.EVENT_TYPE} = 'rating'"
    measured = ", ".join(quoted(measure) for measure in MEASURED)
    # The rule `value.unrated` checks -1. A like that ingest derived from a rating has the rating's
    # value and is checked too, so that both are quarantined together.
    judged = f"({is_rating} OR ends_with({c.EVENT_ID}, '-like'))"
    rules = [
        Rule(
            table,
            "value.finite",
            within(c.VALUE, -MAX_VALUE, MAX_VALUE),
            f"value is infinite or beyond {MAX_VALUE:g}; want a plain number",
        ),
        Rule(
            table,
            "value.unrated",
            none_of("rating_or_unrated", [-1.0] if low > -1 else []),
            "a rating of -1: if that means not rated, set unrated = -1 in the mapping, and the"
            " event becomes a view",
            f"CASE WHEN {is_rating} THEN {c.VALUE} END",
        ),
        Rule(
            table,
            "value.rating_range",
            within("rating", low, high),
            f"range of ratings: want {low:g} to {high:g}",
            f"CASE WHEN {judged}"
            + (f" AND {c.VALUE} <> -1" if low > -1 else "")
            + f" THEN {c.VALUE} END",
        ),
        Rule(
            table,
            "value.not_negative",
            within("amount", 0),
            "a price or duration is negative; want 0 or more (a return is a separate event)",
            f"CASE WHEN {c.EVENT_TYPE} IN ({measured}) THEN {c.VALUE} END",
        ),
    ]
    return rules if low > -1 else [rule for rule in rules if rule.name != "value.unrated"]
