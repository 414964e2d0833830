"""What a loader raises."""


class DatasetError(ValueError):
    """A source cannot be read; the message names file, line or column, and what would be right."""


class SourceUnavailable(DatasetError):
    """A source doesn't answer now, but may do so later: a network or a server is down."""
