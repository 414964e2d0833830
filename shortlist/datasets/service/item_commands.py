"""Stages the pending commands: the catalogue rows that they change.

A command is a change of an item that was posted to the service. It is pending until a refresh has
added it to the lake.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from shortlist import columns as c
from shortlist.config import Settings
from shortlist.datasets.files.locate import SourceFile
from shortlist.datasets.staging import Stager
from shortlist.items.commands import Command, CommandInbox
from shortlist.items.item_changes import changed_rows
from shortlist.lake import Lake
from shortlist.lake.snapshot import Manifest, current_manifest

SOURCE = "commands"
"""Name of the source, and key of its reading state in the lake's manifest."""


def carried_out(manifest: Manifest) -> int:
    """Return the number of the last command that the lake contains, 0 if it contains none."""
    return manifest.sources.get(SOURCE, {}).get("last", 0)


def num_pending(settings: Settings) -> int:
    """Return the number of commands that the lake doesn't contain yet."""
    return max(0, CommandInbox.of(settings).last() - carried_out(current_manifest(settings.lake)))


def rows_after(
    settings: Settings, changes: Sequence[dict[str, Any]], *, received_at: int
) -> pa.Table:
    """Return the catalogue rows of the changed items as they will be after `changes`.

    Args:
        changes: changes of items that are not in the inbox yet.
        received_at: microseconds on the home's clock.

    Raises:
        LakeError: the lake has no catalogue yet.
        CommandError: the inbox can't be read.
    """
    inbox, touched = CommandInbox.of(settings), {change[c.ITEM_ID] for change in changes}
    pending = inbox.after(carried_out(current_manifest(settings.lake)))
    new = [Command(inbox.last(), received_at, change) for change in changes]
    commands = [request for request in (*pending, *new) if request.change[c.ITEM_ID] in touched]
    return changed_rows(Lake(settings.lake).items(), commands)


def stage_commands(stager: Stager) -> None:
    """Stage the items that the pending commands change.

    Raises:
        LakeError: the lake has no catalogue yet.
    """
    inbox = CommandInbox.of(stager.settings)
    last = inbox.last()
    pending = inbox.between(carried_out(current_manifest(stager.settings.lake)), last)
    rows = changed_rows(Lake(stager.settings.lake).items(), pending)
    stager.connection.register("changed_rows", rows)
    file = SourceFile(str(inbox.path), Path(inbox.path), "sqlite", None, label=SOURCE)
    stager.rows(
        "items",
        "SELECT *, 'insert' AS operation, false AS excluded, NULL::VARCHAR[] AS faults,"
        " changed_rows AS original FROM changed_rows",
        file=file,
    )
    stager.fresh.append(str(last))
    stager.batch.source = (SOURCE, {"last": last})
    stager.batch.create = ()
    stager.batch.posted = True
