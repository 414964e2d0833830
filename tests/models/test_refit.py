"""A refit on the same data, with hyperparameters frozen by validation, gives the same source."""

import numpy as np
import pytest

from models import registry
from models.training import TrainingOptions
from tests.models.conftest import make_checkerboard
from tests.models.source_configs import KINDS, small_config


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_same_data_a_refit_is_the_source_that_validation_chose(kind, tmp_path):
    data, validation = make_checkerboard()
    options = TrainingOptions(seed=3, num_threads=1, cache=tmp_path)
    config = small_config(kind)
    source = registry.fit(config, data, validation, options)
    frozen = registry.frozen(source)
    again = registry.refit(config, data, options, frozen=frozen)
    assert registry.frozen(again) == frozen
    assert frozen or kind == "popularity"
    for queries, items, _ in validation.ticks:
        chosen, refitted = (s.retrieve(queries, items, k=5) for s in (source, again))
        assert np.array_equal(chosen.item_idx, refitted.item_idx)
        np.testing.assert_array_equal(chosen.score, refitted.score)
