"""Amazon Reviews 2023 (Hou et al. 2024, arXiv:2403.03952): reviews and catalogue of one category.

Each category has two files in JSON Lines, plain or compressed: `<category>.jsonl.gz` (reviews) and
`meta_<category>.jsonl.gz` (products). They are read from `path`, or downloaded into the cache once.
"""

from pathlib import Path

from shortlist import columns as c
from shortlist.datasets.config import FilesConfig, InteractionFile, ItemFile
from shortlist.datasets.errors import DatasetError
from shortlist.datasets.public.fetch import download
from shortlist.datasets.staging import Stager

URL = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw"
ENDINGS = (".jsonl.gz", ".jsonl", ".jsonl.zst")
REVIEWS = {
    c.USER_ID: "user_id",
    c.ITEM_ID: "parent_asin",
    c.EVENT_TIMESTAMP: "timestamp",
    c.VALUE: "rating",
    c.TEXT: "text",
}
PRODUCTS = {
    c.ITEM_ID: "parent_asin",
    c.TITLE: "title",
    c.DESCRIPTION: "description",
    c.CATEGORIES: "categories",
    c.BRAND: "store",
    c.PRICE: "price",
    c.IMAGE: "images[0].large",
}


def amazon_files(stager: Stager) -> FilesConfig:
    """Locate or download the category's files; return their mapping to the contracts.

    Raises:
        DatasetError: the files are not at `path`, or can't be downloaded.
    """
    category = stager.config.category
    assert category is not None, "checked by DataConfig"
    folder = stager.config.path or stager.settings.cache / "amazon-reviews-2023"
    reviews = _file(folder, category, "review_categories", fetch=stager.config.path is None)
    products = _file(
        folder, f"meta_{category}", "meta_categories", fetch=stager.config.path is None
    )
    return FilesConfig(
        interactions=(
            InteractionFile(
                path=str(reviews), columns=REVIEWS, event_type="review", timestamp_unit="ms"
            ),
        ),
        items=ItemFile(path=str(products), columns=PRODUCTS, sparse=True),
    )


def _file(folder: Path, name: str, shelf: str, *, fetch: bool) -> Path:
    for ending in ENDINGS:
        if (path := folder / f"{name}{ending}").is_file():
            return path
    if not fetch:
        raise DatasetError(
            f"{folder}: no {name}.jsonl.gz there (nor {', '.join(ENDINGS[1:])});"
            " want a category's two files as they come from the Amazon Reviews 2023 page"
        )
    return download(f"{URL}/{shelf}/{name}.jsonl.gz", folder / f"{name}.jsonl.gz")
