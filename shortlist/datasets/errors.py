"""Errors raised by the readers of data sources."""


class DatasetError(ValueError):
    """A source can't be read; the message gives file, line or column, and what would be right."""


class SourceUnavailable(DatasetError):
    """A network or server doesn't respond; a retry may succeed."""
