"""Sequence files, one user a line: "user item item ...", oldest first, as the S3-Rec, SASRec and
TIGER papers share theirs.

There are no times in them. An event's time is its place in the line, in seconds from FIRST on, so
that the order is kept; whatever is made of times is not for such data (`DataConfig.has_time`).
"""

from shortlist.datasets.config import InteractionFile
from shortlist.datasets.locate import locate
from shortlist.datasets.readers import Raw
from shortlist.datasets.staging import Stager
from shortlist.lake.engine import quoted

COLUMNS = {"user_id": "user", "item_id": "item", "event_timestamp": "place"}
NAMES = ("user", "item", "place")
FIRST = 631_152_000
"""1990-01-01, seconds: a time near 1970 would be taken for one in another unit."""


def stage_sequences(stager: Stager) -> None:
    """Every item of a line becomes an event of its user; a user alone has none, which is a fault.

    Raises:
        DatasetError: the file is not there or cannot be read.
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
            expressions={one: one for one in NAMES},
            types={"user": "VARCHAR", "item": "VARCHAR", "place": "BIGINT"},
            original="struct_pack(user := user, item := item, place := place::VARCHAR)",
            rejects=True,
        )
        stager.events(raw, table, file=file)
    stager.given = {"files": seen}
    stager.batch.source = (key, stager.given)
    stager.batch.create = ("items", "users")
