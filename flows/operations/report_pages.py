"""Serves monitoring reports and Data Docs of a home: `python -m flows.operations.report_pages`.

Only loopback clients are served, because the pages show user ids and have no login. Other files of
the home (the folder SHORTLIST_HOME) are not reachable.
"""

import argparse
import json
from functools import partial
from html import escape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flows.operations.links import PAGES
from shortlist.config import Settings

HOST = "127.0.0.1"


class Pages(SimpleHTTPRequestHandler):
    """Handler of GET requests; the first part of a path names the folder."""

    def __init__(self, *arguments, settings: Settings, **parameters):
        self.folders = {name: getattr(settings, attribute).absolute() for name, attribute in PAGES}
        super().__init__(*arguments, **parameters)

    def do_GET(self) -> None:
        if urlsplit(self.path).path in ("", "/"):
            self._index()
        else:
            super().do_GET()

    def translate_path(self, path: str) -> str:
        """Return the file of a path; a file that doesn't exist for anything outside the folders."""
        parts = [part for part in unquote(urlsplit(path).path).split("/") if part]
        folder = self.folders.get(parts[0]) if parts else None
        nowhere = str(Path("/nonexistent"))
        if folder is None:
            return nowhere
        found = folder.joinpath(*parts[1:]).resolve()
        return str(found) if found.is_relative_to(folder.resolve()) else nowhere

    def end_headers(self) -> None:
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "SAMEORIGIN")
        self.send_header("Referrer-Policy", "no-referrer")
        super().end_headers()

    def _index(self) -> None:
        lines = ["<h1>Shortlist: reports</h1><ul>"]
        try:
            latest = json.loads((self.folders["reports"] / "latest.json").read_text())
            page = Path(latest["report"]).absolute().relative_to(self.folders["reports"])
            lines.append(
                f'<li><a href="/reports/{escape(page.as_posix())}">newest report</a>:'
                f" {escape(latest['verdict'])}, release {escape(latest['release_id'])}</li>"
            )
        except (OSError, ValueError, KeyError):
            lines.append("<li>no report yet; run <code>shortlist monitor</code></li>")
        lines.append('<li><a href="/reports/">all reports</a></li>')
        lines.append('<li><a href="/data-docs/index.html">Data Docs</a>: validation of all data')
        body = "".join([*lines, "</ul>"]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def server(settings: Settings, port: int) -> ThreadingHTTPServer:
    """Return a server of the pages on the loopback address; port 0 chooses a free one."""
    return ThreadingHTTPServer((HOST, port), partial(Pages, settings=settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with server(Settings(), parser.parse_args().port) as pages:
        pages.serve_forever()


if __name__ == "__main__":
    main()
