"""Features: stored states (aggregates of events), `finalize`, which computes features from them,
feature descriptions, and the file of item features (pack).
"""
