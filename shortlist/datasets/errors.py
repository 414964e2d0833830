"""What a loader raises."""


class DatasetError(ValueError):
    """A source cannot be read; the message names file, line or column, and what would be right."""
