"""The catalogue: arrays for models, past versions, and changes that were posted."""
