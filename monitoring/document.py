"""The frame of the report pages: one HTML file with its style, without scripts."""

from collections.abc import Iterable


def document(body: Iterable[str], *, title: str, style: str) -> str:
    """Return a whole HTML document.

    Args:
        body: HTML of the parts of the page.
        title: HTML of the title.
        style: CSS.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{style}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )
