"""Builds Data Docs that work without a network.

The pages of Great Expectations load styles, scripts and icons from other hosts. Here they load the
same files, in the same versions, from the site itself.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from great_expectations.render.renderer.site_builder import SiteBuilder
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from flows.validation.docs import with_accounts

ASSETS = Path(__file__).parent / "data_docs_assets"
LOCAL = {
    "bootstrap-table.min.css": "bootstrap-table/bootstrap-table.min.css",
    "bootstrap-table.min.js": "bootstrap-table/bootstrap-table.min.js",
    "bootstrap-table-filter-control.css": "bootstrap-table/bootstrap-table-filter-control.min.css",
    "bootstrap-table-filter-control.min.css": (
        "bootstrap-table/bootstrap-table-filter-control.min.css"
    ),
    "bootstrap-table-filter-control.min.js": (
        "bootstrap-table/bootstrap-table-filter-control.min.js"
    ),
    "bootstrap.min.css": "bootstrap/bootstrap.min.css",
    "bootstrap.min.js": "bootstrap/bootstrap.min.js",
    "bootstrap-datepicker.min.css": "bootstrap-datepicker/bootstrap-datepicker.min.css",
    "bootstrap-datepicker.min.js": "bootstrap-datepicker/bootstrap-datepicker.min.js",
    "popper.min.js": "popper/popper.min.js",
    "jquery-3.7.1.min.js": "jquery/jquery.min.js",
    "all.min.css": "fontawesome/css/all.min.css",
}
"""{name of a file that pages load from another host: path of the same file in ASSETS}."""
LOGO = "images/logo-long.png"
TAKEN = re.compile(r'<(?:link|script)\b[^>]*?(?:href|src)="(https://[^"]+)"[^>]*>(?:</script>)?')
ICON = re.compile(r'href="[./]*static/images/')
"""Link to an icon. Great Expectations writes a wrong number of parent folders on some pages."""
PICTURE = re.compile(r"https://great-expectations-web-assets[^\"')]+")


_index_later: ContextVar[bool] = ContextVar("index_later", default=False)


@contextmanager
def index_later() -> Iterator[None]:
    """Skip the index page in all builds inside the block.

    Building it is slow, because it lists all stored results; one build at the end is enough.
    """
    token = _index_later.set(True)
    try:
        yield
    finally:
        _index_later.reset(token)


class CompiledTemplates(BytecodeCache):
    """Cache of compiled templates in memory.

    Great Expectations creates new template environments for each build. Without a shared cache,
    each would compile all templates again.
    """

    def __init__(self) -> None:
        self.compiled: dict[tuple[str, str], bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """See `BytecodeCache.load_bytecode`."""
        code = self.compiled.get((bucket.key, bucket.checksum))
        if code is not None:
            bucket.load_bytecode(BytesIO(code))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """See `BytecodeCache.dump_bytecode`."""
        self.compiled[bucket.key, bucket.checksum] = bucket.bytecode_to_string()


TEMPLATES = CompiledTemplates()


class OfflineSiteBuilder(SiteBuilder):
    """Site builder whose pages work without a network."""

    def build(self, resource_identifiers: Any = None, build_index: bool = True) -> Any:
        """See `SiteBuilder.build`."""
        for builder in (*self.site_section_builders.values(), self.site_index_builder):
            builder.view_class.env.bytecode_cache = TEMPLATES
        build_index = build_index and not _index_later.get()
        built = super().build(resource_identifiers, build_index)
        store = self.target_store
        written = [key.resource_identifier for key in store.keys]
        pages = [
            _path(store.get_url_for_resource(resource, only_if_exists=False))
            for resource in written
        ]
        index = _path(store.get_url_for_resource(only_if_exists=False))
        if build_index:
            pages.append(index)
        shutil.copytree(ASSETS, index.parent / "static" / "offline", dirs_exist_ok=True)
        for page in pages:
            depth = len(page.relative_to(index.parent).parts) - 1
            text = offline(page.read_text(encoding="utf-8"), "../" * depth + "static/")
            if page == index:
                text = with_accounts(text, index.parent)
            page.write_text(text, encoding="utf-8")
        return built


def offline(page: str, static: str) -> str:
    """Rewrite a page so that it loads styles, scripts and pictures only from the folder `static`.

    Links to files that are not in LOCAL are removed: they serve dark mode and charts, which aren't
    used.
    """

    def local(found: re.Match[str]) -> str:
        file = LOCAL.get(urlparse(found[1]).path.rsplit("/", 1)[-1])
        if file is None:
            return ""
        if found[0].startswith("<link"):
            return f'<link rel="stylesheet" href="{static}offline/{file}">'
        return f'<script src="{static}offline/{file}"></script>'

    page = ICON.sub(f'href="{static}images/', PICTURE.sub(static + LOGO, page))
    return TAKEN.sub(local, page)


def _path(url: str | None) -> Path:
    assert url is not None, "the site lies in a folder"
    return Path(unquote(urlparse(url).path))
