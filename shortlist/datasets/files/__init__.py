"""Readers of a user's files: opening, mapping of columns, conversion of cells."""
