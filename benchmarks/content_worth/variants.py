"""The models that `shortlist bench content` compares, by data set."""

from typing import Any

from models.content.config import MINILM, TFIDF, TRAINED, ContentFeatures, FusionConfig
from models.content.fusion import ContentConfig
from models.retrieval.two_tower import TwoTowerConfig
from models.training import OptimiserConfig

NO_FEATURES: dict[str, Any] = {"text": None, "categories": False, "vectors": False}
PARTS: dict[str, dict[str, Any]] = {
    "text": {"text": "minilm"},
    "categories": {"categories": True},
    "reviews": {"reviews": 10},
    "image": {"images": TRAINED},
    "vector_image": {"vectors": ("vector_image",)},
    "vector_audio": {"vectors": ("vector_audio",)},
    "vector_video": {"vectors": ("vector_video",)},
}
VECTORS = ("vector_image", "vector_audio", "vector_video")
TEXT = {"shop": TFIDF, "video": TFIDF, "ml-1m": MINILM}
"""Text encoder; the simulated texts come from a small grammar, for which a transformer is not
needed."""
MODALITIES = {
    "shop": tuple(PARTS),
    "video": ("text", "categories", "reviews", *VECTORS),
    "ml-1m": ("text", "categories"),
}

FUSIONS: dict[str, dict[str, Any]] = {
    "open gates, no modality dropout": {"fusion": FusionConfig(gates="open", modality_dropout=0)},
    "modality dropout 0.4": {"fusion": FusionConfig(modality_dropout=0.4)},
    "collaborative 0.5": {"collaborative": 0.5},
}


def features(*parts: str, **changes: Any) -> ContentFeatures:
    """Return the settings that read the named modalities and no others."""
    settings = dict(NO_FEATURES)
    for part in parts:
        setting = PARTS[part]
        if "vectors" in setting:
            settings["vectors"] = (*(settings["vectors"] or ()), *setting["vectors"])
        else:
            settings |= setting
    return ContentFeatures.model_validate(settings | changes)


def content_config(read: ContentFeatures, *, epochs: int, **changes: Any) -> ContentConfig:
    return ContentConfig(
        features=read,
        max_history=30,
        num_negatives=512,
        batch_size=512,
        negatives="used",
        optimiser=OptimiserConfig(learning_rate=3e-3, num_epochs=epochs),
        **changes,
    )


def two_tower_config(read: ContentFeatures | None, *, epochs: int) -> TwoTowerConfig:
    given = {
        "content": None if read is None else read.model_dump(),
        "max_history": 30,
        "num_negatives": 512,
        "batch_size": 512,
        "optimiser": {"learning_rate": 3e-3, "num_epochs": epochs},
    }
    return TwoTowerConfig.model_validate(given)


def variants(dataset: str, *, epochs: int) -> dict[str, Any]:
    """Return {variant: config} of a data set."""
    modalities, text = MODALITIES[dataset], TEXT[dataset]

    def read(*parts: str, text: str = text) -> ContentConfig:
        changes = {"text": text} if "text" in parts else {}
        return content_config(features(*parts, **changes), epochs=epochs)

    alone = ("text", "categories") if dataset == "ml-1m" else ("text", *modalities[3:])
    found: dict[str, Any] = {f"only {part}": read(part) for part in alone}
    found["text + categories"] = read("text", "categories")
    name = "text + categories"
    if text == MINILM:
        found["text + categories, tfidf"] = read("text", "categories", text=TFIDF)
    if len(modalities) > 2:
        found["all"] = read(*modalities)
        name = "all but reviews"
        found[name] = read(*(part for part in modalities if part != "reviews"))
        if "image" in modalities:
            found["all but image"] = read(*(part for part in modalities if part != "image"))
    base = found[name]
    for change, changes in FUSIONS.items():
        found[f"{name}, {change}"] = base.model_copy(update=changes)
    found["two_tower"] = two_tower_config(None, epochs=epochs)
    found[f"two_tower + {name}"] = two_tower_config(base.features, epochs=epochs)
    return found
