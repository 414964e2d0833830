"""All source types, with configurations that train quickly."""

from models import registry
from models.training import OptimiserConfig

# `audience` has its own tests (test_audience.py): with 30 items its 48 dimensions are the matrix.
KINDS = tuple(kind for kind in registry.SOURCES if kind != "audience")
TRAINED = tuple(kind for kind in KINDS if kind not in registry.BASELINES)
LIGR = "sasrec+ligr"  # SASRec with LiGR blocks, tested like a source type
SMALL = {
    "embedding_dim": 16,
    "batch_size": 16,
    "num_negatives": 64,
    "optimiser": OptimiserConfig(learning_rate=1e-2, warmup_steps=0, num_epochs=20, patience=2),
}


def small_config(kind: str, **changes):
    """Return the default config of a source type; a trained source also gets values of SMALL."""
    if kind == LIGR:
        return small_config("sasrec", block="ligr", **changes)
    config = registry.parse_source(f'{{"kind": "{kind}"}}')
    if kind in TRAINED:
        own = {k: v for k, v in (SMALL | changes).items() if k in type(config).model_fields}
        config = config.model_copy(update=own)
    return config
