"""Downloads a public file atomically."""

from pathlib import Path

from shortlist.datasets.errors import SourceUnavailable


def download(url: str, path: Path, *, else_: str = "`path` to a copy of it") -> Path:
    """Download `url` to `path`, unless the file exists; return `path`.

    Args:
        else_: setting that makes the download unnecessary, for the error message.

    Raises:
        SourceUnavailable: the download failed.
    """
    import httpx

    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=60) as answer:
            answer.raise_for_status()
            with partial.open("wb") as file:
                for chunk in answer.iter_bytes():
                    file.write(chunk)
    except httpx.HTTPError as error:
        partial.unlink(missing_ok=True)
        raise SourceUnavailable(f"{url}: {error}; instead of the download: {else_}") from None
    partial.replace(path)
    return path
