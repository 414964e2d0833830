"""Encoding, decoding, saving and errors of vocabularies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortlist.vocab import Vocab

IDS = st.lists(st.text(min_size=1), unique=True)


@given(IDS)
def test_encode_and_decode_are_inverse_and_zero_is_never_an_id(ids):
    vocab = Vocab(ids)
    encoded = vocab.encode(ids)
    assert encoded.tolist() == list(range(1, len(ids) + 1))
    assert vocab.decode(encoded) == ids
    assert vocab.size == len(ids) + 1


def test_unknown_ids_become_zero_and_leading_zeros_survive():
    vocab = Vocab(["00196", "196"])
    assert vocab.encode(["196", "00196", "0196"]).tolist() == [2, 1, 0]


def test_saved_and_loaded_it_is_the_same(tmp_path):
    Vocab(["b", "a"]).save(tmp_path / "vocab.parquet")
    assert Vocab.load(tmp_path / "vocab.parquet").ids == ["b", "a"]


def test_duplicates_and_other_types_are_refused():
    with pytest.raises(ValueError, match="1 duplicate ids in 3"):
        Vocab(["a", "b", "a"])
    with pytest.raises(ValueError, match=r"id 196.0 is float, want str"):
        Vocab([196.0])  # type: ignore[list-item]


@pytest.mark.parametrize("index", [0, 3])
def test_an_index_that_is_no_id_is_refused(index):
    with pytest.raises(ValueError, match="want 1 to 2"):
        Vocab(["a", "b"]).decode([index])
