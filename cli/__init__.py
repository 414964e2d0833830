"""The `shortlist` command: Typer commands and what they print."""
