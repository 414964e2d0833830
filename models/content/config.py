"""Settings of an item's content features: which modalities a model reads, and by which encoder."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from shortlist.config import Config, ConfigPath, beside_file

MINILM, TFIDF, TRAINED = "minilm", "tfidf", "trained"
"""Names of the built-in encoders; any other name is a model of the Hugging Face libraries."""


class ContentFeatures(Config):
    """Modalities that describe an item. An item may lack any of them."""

    text: str | None = MINILM
    """Encoder of title, description, brand and categories: `minilm` (all-MiniLM-L6-v2, installed
    with this package), `tfidf` (word weights reduced by an SVD; fast, without a transformer), or
    the folder (beginning with `/`, `./` or `../`) or name of a sentence-transformers model.
    "none": no text."""
    text_dim: int = Field(default=128, ge=1, le=4096)
    """Dimensions of the vectors of `tfidf`."""
    categories: bool = True
    """Whether categories are a modality of their own, beside their names in the text."""
    reviews: int = Field(default=0, ge=0, le=100)
    """Number of newest reviews of each item that are read, by the encoder of `text` (`tfidf` if
    `text` is "none"). 0: none. Only reviews before the end of the training window are read."""
    images: str | None = None
    """Encoder of the files in the column `image`: `trained` (a small convolutional network, trained
    on the catalogue's images and categories), or the folder (beginning with `/`, `./` or `../`) or
    name of a vision model of the library transformers (CLIP, DINO, ViT). None or "none": images are
    not read."""
    image_folder: ConfigPath | None = None
    """Folder to which relative paths in the column `image` belong; None: the working directory."""
    vectors: bool | tuple[str, ...] = True
    """Columns `vector_<modality>` that are read: all (true), none (false), or a list of names such
    as ["vector_audio"]."""

    @field_validator("vectors")
    @classmethod
    def _named_vectors(cls, value: bool | tuple[str, ...]) -> bool | tuple[str, ...]:
        for name in () if isinstance(value, bool) else value:
            if not name.startswith("vector_"):
                raise ValueError(f"'{name}' is not a vector column, want names like vector_audio")
        return value

    @field_validator("text", "images")
    @classmethod
    def _encoder(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value == "":
            raise ValueError('want the name of an encoder, or "none"')
        if value == "none":  # TOML has no null
            return None
        is_folder = value is not None and value.startswith(("./", "../"))
        return beside_file(value, info) if value is not None and is_folder else value


class FusionConfig(Config):
    """How the modalities of an item become one vector."""

    gates: Literal["learned", "open"] = "learned"
    """`learned`: each modality is weighted by a gate that depends on the item; `open`: all have
    weight 1."""
    modality_dropout: float = Field(default=0.1, ge=0, lt=1)
    """Probability with which training hides a modality of an item, so that items without it get
    useful vectors too. At least one modality stays."""
