"""Tunes hyperparameters of a source or ranker on the validation window (`shortlist tune`)."""
