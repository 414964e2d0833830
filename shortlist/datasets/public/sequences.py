"""Reads sequence files: one line per user, "user item item ...", oldest first.

The S3-Rec, SASRec and TIGER papers publish data in this form. It has no times. The time of an event
is FIRST plus its position in the line in seconds, which keeps the order. Time features must not be
used for such data (`DataConfig.has_time`).
"""

from shortlist.datasets.config import InteractionFile
from shortlist.datasets.files.locate import locate
from shortlist.datasets.files.readers import Raw
from shortlist.datasets.staging import Stager
from shortlist.lake.engine import quoted

COLUMNS = {"user_id": "user", "item_id": "item", "event_timestamp": "place"}
NAMES = ("user", "item", "place")
FIRST = 631_152_000
"""1990-01-01 in seconds. Validation refuses times near 1970: they may be in another unit."""


def stage_sequences(stager: Stager) -> None:
    """Stage the files: every item of a line becomes an event of its user.

    A line with a user but no items gives an event without an item, which validation quarantines.

    Raises:
        DatasetError: a file is missing or can't be read.
    """
    table = InteractionFile(
        path=str(stager.config.path),
        columns=COLUMNS,
        event_type=stager.config.target_events[0],
        format="csv",
    )
    key = stager.key(["sequences", table.model_dump(mode="json")])
    known = stager.known(key).get("files", {})
    seen = {}
    for file in locate(table.path, format="csv", cache=stager.settings.cache):
        seen[file.name] = file.fingerprint()
        if known.get(file.name) == seen[file.name]:
            stager.batch.unchanged += 1
            continue
        stager.fresh.append(seen[file.name])
        lines = (
            f"read_csv({quoted(str(file.path))}, columns = {{'line': 'VARCHAR'}},"
            " auto_detect = false, header = false, delim = chr(1), quote = '', escape = '',"
            f" compression = '{file.compression or 'none'}', store_rejects = true,"
            " rejects_limit = 0, max_line_size = 16000000)"
        )
        relation = (
            "(SELECT line, words[1] AS user, unnest(coalesce(nullif(words[2:], []), [NULL]))"
            f" AS item, {FIRST} + unnest(range(1, greatest(len(words), 2))) AS place"
            " FROM (SELECT line,"
            f" string_split_regex(trim(line), '\\s+') AS words FROM {lines}"
            " WHERE line IS NOT NULL))"
        )
        raw = Raw(
            relation=relation,
            expressions={name: name for name in NAMES},
            types={"user": "VARCHAR", "item": "VARCHAR", "place": "BIGINT"},
            original="struct_pack(user := user, item := item, place := place::VARCHAR)",
            rejects=True,
        )
        stager.events(raw, table, file=file)
    stager.remember(key, {"files": seen})
    stager.batch.create = ("items", "users")
