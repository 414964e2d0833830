"""Calibration and metrics of predicted outcomes. Shapes: R candidates, G requests."""

import numpy as np

MIN_LABELS = 20
"""With fewer labels of a class, probabilities aren't calibrated."""
BINS = 10


def has_enough(label: np.ndarray) -> bool:
    """Return whether (R,) labels can calibrate probabilities: MIN_LABELS of each class."""
    positives = int(label.sum())
    return min(positives, len(label) - positives) >= MIN_LABELS


def platt(margin: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Return (slope, offset) of the logistic regression of labels on margins, by Newton's method.

    (1, 0) if there are fewer than MIN_LABELS labels of a class, or the slope would not be positive.
    """
    if not has_enough(label):
        return 1.0, 0.0
    x = np.stack([margin, np.ones(len(margin))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(25):
        p = sigmoid(x @ weights)
        # Platt's priors would matter for few labels only; a small ridge keeps the step finite.
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-6 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (p - label))
        weights = weights - step
        if np.abs(step).max() < 1e-8:
            break
    slope, offset = float(weights[0]), float(weights[1])
    return (slope, offset) if slope > 0 and np.isfinite(weights).all() else (1.0, 0.0)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def auc(score: np.ndarray, label: np.ndarray) -> float:
    """Return the area under the ROC curve; NaN if one class is missing. Ties count half."""
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # mean rank of equal scores
    return float(
        (rank[place][label > 0].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    )


def grouped_auc(score: np.ndarray, label: np.ndarray, group: np.ndarray) -> float:
    """Return the AUC within requests: their mean, weighted by the number of candidates (GAUC, Zhu
    et al. 2017).

    Requests without both classes are left out; NaN if there are no others.

    Args:
        group: (G,) number of candidates of each request.
    """
    ends = np.cumsum(group)
    parts = [slice(end - size, end) for end, size in zip(ends, group, strict=True)]
    each = np.array([auc(score[part], label[part]) for part in parts])
    known = ~np.isnan(each)
    return float(np.average(each[known], weights=group[known])) if known.any() else float("nan")


def correlation(score: np.ndarray, label: np.ndarray) -> float:
    """Return Pearson's correlation; 0 if one of the two is constant."""
    if np.ptp(score) == 0 or np.ptp(label) == 0:
        return 0.0
    return float(np.corrcoef(score, label)[0, 1])


def log_loss(probability: np.ndarray, label: np.ndarray) -> float:
    p = np.clip(probability, 1e-12, 1 - 1e-12)
    return float(-np.mean(np.where(label > 0, np.log(p), np.log(1 - p))))


def calibration_error(probability: np.ndarray, label: np.ndarray) -> float:
    """Return the expected calibration error over BINS bins of equal size (Guo et al. 2017)."""
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, BINS)
    gaps = [abs(probability[p].mean() - label[p].mean()) * len(p) for p in parts if len(p)]
    return float(sum(gaps) / max(len(label), 1))
