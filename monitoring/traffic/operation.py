"""Figures without requests behind them: ages, drift, skew and errors of the service."""

OPERATION = {
    "data_age_hours": ("age of the newest event", "hours", "now - time of the newest event"),
    "item_features_age_hours": ("age of the item features", "hours", "now - as_of of the pack"),
    "release_age_days": (
        "age of the last full training",
        "days",
        "now - end of the data of the release's last full training; increments don't change it",
    ),
    "error_rate": (
        "failed requests",
        "share",
        "5xx answers of /recommend / answers, since the last check, from the service's /metrics",
    ),
    "log_dropped": (
        "dropped log lines",
        "count",
        "lines of the serving log that were not written since the last check",
    ),
    "unlogged_rate": (
        "answers without a log line",
        "share",
        "1 - new lines of the serving log / lists that the service counted, since the last check",
    ),
    "skew_different_share": (
        "skew",
        "share",
        "vectors in which the worst feature differs from the recomputed one by more than rounding /"
        " compared vectors (`shortlist skew`)",
    ),
    "event_drift_share": (
        "drift of events",
        "share",
        "varying columns with a distance >= 0.1 / varying columns (Evidently)",
    ),
    "request_drift_share": ("drift of requests", "share", "as event_drift_share"),
    "feature_drift_share": ("drift of the ranking features", "share", "as event_drift_share"),
    "score_drift": (
        "drift of scores",
        "standard deviations",
        "Wasserstein distance / standard deviation of the reference",
    ),
    "source_mix_drift": ("drift of the sources' shares", "0 to 0.83", "Jensen-Shannon distance"),
    "embedding_drift": (
        "drift of the shown items' vectors",
        "0 to 2",
        "1 - cosine of the mean category vectors of both windows",
    ),
}
"""Figures without requests behind them: name -> (title, unit, formula)."""
