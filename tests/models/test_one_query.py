"""The numpy encoders of single queries equal the torch modules."""

import numpy as np
import pytest
import torch

from models.content.config import ContentFeatures
from models.content.fusion import ContentConfig, ContentModel
from models.content.modalities import ContentEncoder
from models.queries import Queries
from models.retrieval.two_tower import TwoTower, TwoTowerConfig
from models.sequence.bsarec import BsarecConfig
from models.sequence.fit import encoder_of
from models.sequence.model import SequenceConfig, SequenceModel
from models.sequence.sasrec import SasrecConfig
from models.sequence.simple import AverageConfig, GruConfig
from models.vector_source import VectorModel
from shortlist.columns import MICROSECONDS_PER_DAY as DAY
from shortlist.features.finalize import CONTEXT_FEATURES, USER_FEATURES
from shortlist.features.searches import NO_SEARCHES

NUM_ITEMS, CARDINALITIES = 40, (3, 5)
LENGTHS = (0, 1, 2, 7, 8, 9, 30)
"""Lengths of the histories; the models read up to 8 events."""


def queries_of(length: int) -> Queries:
    """Return a batch of one query with a random history of this length."""
    rng = np.random.default_rng(length)
    L = max(length, 1)
    real = np.arange(L)[None] < length

    def padded(values: np.ndarray, padding: float = 0) -> np.ndarray:
        return np.where(real, values, padding).astype(values.dtype)

    return Queries(
        user_ids=["u"],
        at=np.array([100 * DAY]),
        history=padded(rng.integers(1, NUM_ITEMS + 1, size=(1, L))),
        history_time=padded(np.sort(rng.integers(DAY, 99 * DAY, size=(1, L)))),
        history_value=padded(rng.random((1, L)).astype(np.float32), np.nan),
        history_type=padded(rng.integers(0, 5, size=(1, L))),
        seen=[np.zeros(0, dtype=np.int64)],
        user=rng.normal(size=(1, len(USER_FEATURES))).astype(np.float32),
        context=rng.normal(size=(1, len(CONTEXT_FEATURES))).astype(np.float32),
        profile=np.array([[rng.integers(c) for c in CARDINALITIES]]),
        searches=[NO_SEARCHES],
    )


def sequence(config: SequenceConfig) -> SequenceModel:
    rng = np.random.default_rng(1)
    categories = (rng.random((NUM_ITEMS + 1, 6)) < 0.3).astype(np.float32)
    known = rng.random(NUM_ITEMS + 1) < 0.8
    config = config.model_copy(update={"max_history": 8, "embedding_dim": 16})
    return SequenceModel(config, encoder_of(config), categories=categories, known=known)


def two_tower() -> TwoTower:
    rng = np.random.default_rng(1)
    categories = (rng.random((NUM_ITEMS + 1, 6)) < 0.3).astype(np.float32)
    model = TwoTower(
        TwoTowerConfig(max_history=8, embedding_dim=16),
        categories=categories,
        known=rng.random(NUM_ITEMS + 1) < 0.8,
        profile_cardinalities=CARDINALITIES,
    )
    model.query.deviation.uniform_(0.5, 2.0)
    return model


MODELS = {
    "two_tower": two_tower,
    "content": lambda: ContentModel(
        ContentConfig(max_history=8, embedding_dim=16),
        num_items=NUM_ITEMS,
        encoder=ContentEncoder(ContentFeatures(), {"text": 9}),
    ),
    "average": lambda: sequence(AverageConfig()),
    "average, cosine": lambda: sequence(AverageConfig(temperature=0.2)),
    "gru": lambda: sequence(GruConfig()),
    "gru, cosine": lambda: sequence(GruConfig(temperature=0.2, time_gaps=True)),
    "sasrec": lambda: sequence(SasrecConfig()),
    "sasrec, everything": lambda: sequence(
        SasrecConfig(num_blocks=3, num_heads=4, time_gaps=True, event_types=True)
    ),
    "sasrec, gated blocks": lambda: sequence(SasrecConfig(num_blocks=2, block="ligr")),
}


def randomised(name: str) -> VectorModel:
    """Return a model whose parameters are all random, because many start at zero."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.4)
        if isinstance(model, ContentModel):
            model.table.normal_()
    return model


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "not frozen"])
@pytest.mark.parametrize("name", list(MODELS))
def test_one_query_is_encoded_as_by_torch(name: str, frozen: bool) -> None:
    model = randomised(name)
    if frozen and hasattr(model, "embed"):
        model.embed.freeze()
    encode = model.one_query()
    assert encode is not None
    for length in LENGTHS:
        queries = queries_of(length)
        with torch.inference_mode():
            expected = model.encode(queries).numpy()[0]
        got = encode(queries)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_an_encoder_without_a_numpy_version_is_run_by_torch() -> None:
    assert sequence(BsarecConfig()).one_query() is None
