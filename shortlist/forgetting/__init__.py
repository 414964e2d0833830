"""Forgetting people: what a deployment does after `shortlist forget USER` or `DELETE /users/{id}`.

    forgotten/key              random key of the home's hashes of user ids
    forgotten/register.jsonl   {"user": hash, "at": microseconds} of every request, kept for good
    forgotten/<time>-<hash>.json   proof of one erasure: what was removed, where and when
    events/commands.db         the requests that are not carried out yet, with the user's id

A request takes effect in four steps:

1. at once (at_once.py): the tail, online rows and shown items are deleted; readers of states and
   logs hide everything of the user that is older than the request;
2. at the next refresh (from_lake.py): the lake loses the events, so the states are rebuilt;
3. at the next compaction, or with `--now` (erase.py): all other files of the home;
4. at the next training: the models.

Events dated before the request are ignored for good, wherever they come from (register.py).
"""
