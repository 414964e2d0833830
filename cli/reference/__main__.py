"""Writes all pages of docs/reference: `python -m cli.reference`."""

from cli.reference.pages import FOLDER, PAGES

if __name__ == "__main__":
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")
