"""Scores of LightGBM models by vectorised bit masks, several times as fast as LightGBM's predict.

Method: QuickScorer (Lucchese et al. 2015, "QuickScorer: a fast algorithm to rank documents with
additive ensembles of regression trees") in its vectorised form (V-QuickScorer, 2016). The leaves of
a tree are numbered from left to right and each candidate starts with all of them. Each node whose
test sends a candidate to the right removes the leaves of its left subtree. The first leaf that
remains is the candidate's leaf. The loop has no branches, so the compiler evaluates a node for many
candidates at once.

Scores are equal to LightGBM's raw scores, bit by bit. Thresholds are rounded down to float32, which
gives the same decisions for float32 features. Leaf values are added in the order of the trees.

Shapes: R candidates, F features, T trees, N nodes, L leaves per tree.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

T = TypeVar("T", int, float)

MAX_LEAVES = 64
"""Maximum number of leaves per tree; a mask has one bit per leaf."""
CATEGORICAL, DEFAULT_LEFT = 1, 2
MISSING_ZERO, MISSING_NAN = 1, 2
"""Parts of LightGBM's `decision_type` of a node: two flags, then two bits that tell which value
counts as missing."""


class UnsupportedTreeError(ValueError):
    """The model has a tree that this code can't score. LightGBM's own predict can."""


@dataclass(frozen=True)
class TreeScores:
    """The trees of a LightGBM model as arrays."""

    num_features: int
    first_node: np.ndarray  # (T + 1,) int64: nodes of tree t are first_node[t]:first_node[t + 1]
    feature: np.ndarray  # (N,) int64: feature that the node tests
    threshold: np.ndarray  # (N,) float32; numeric nodes: greater goes right
    nan_right: np.ndarray  # (N,) bool: NaN goes right
    words: np.ndarray  # (N, 2) int64: range in `category_bits` of a categorical node, else 0, 0
    category_bits: np.ndarray  # uint32 words; bit c % 32 of word c // 32 set: category c goes left
    keep: np.ndarray  # (N,) uint32 or uint64: bits of the leaves that remain after going right
    leaf_value: np.ndarray  # (T, L) float64: score that each leaf adds

    @classmethod
    def parse(cls, models: Iterable[str]) -> "TreeScores":
        """Read one or more models for the same features, in LightGBM's text format.

        Raises:
            UnsupportedTreeError: a tree has more than MAX_LEAVES leaves, linear leaves, or treats 0
                as missing.
        """
        num_features, parsed = 0, []
        for model in models:
            header, *trees = model.partition("end of trees")[0].split("\nTree=")
            num_features = int(_fields(header)["max_feature_idx"]) + 1
            parsed += [_Tree.parse(_fields(tree)) for tree in trees]
        width = max((len(tree.values) for tree in parsed), default=1)
        if width > MAX_LEAVES:
            raise UnsupportedTreeError(f"{width} leaves in a tree, want at most {MAX_LEAVES}")
        mask = np.uint32 if width <= 32 else np.uint64
        values = np.zeros((len(parsed), width))
        for row, tree in zip(values, parsed, strict=True):
            row[: len(tree.values)] = tree.values
        nodes = [node for tree in parsed for node in tree.nodes]
        bits: list[int] = []
        words = np.zeros((len(nodes), 2), dtype=np.int64)
        for row, node in zip(words, nodes, strict=True):
            row[:] = len(bits), len(bits) + len(node.categories)
            bits += node.categories
        return cls(
            num_features=num_features,
            first_node=np.cumsum([0, *(len(tree.nodes) for tree in parsed)], dtype=np.int64),
            feature=np.array([node.feature for node in nodes], dtype=np.int64),
            threshold=_float32_below(np.array([node.threshold for node in nodes], dtype=float)),
            nan_right=np.array([node.nan_right for node in nodes], dtype=bool),
            words=words,
            category_bits=np.array(bits, dtype=np.uint32),
            keep=np.array([node.keep & (2 ** (8 * mask().itemsize) - 1) for node in nodes], mask),
            leaf_value=values,
        )

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the raw scores, summed over all trees: (R, F) float32 features -> (R,) float64."""
        if x.shape[1] != self.num_features:
            raise ValueError(f"{x.shape[1]} features, the model wants {self.num_features}")
        # Imported here, because importing numba takes a second that many commands don't need.
        from models.ranking.trees.kernel import MAGIC, POSITIONS, SHIFT, scores

        kind = self.keep.dtype.type
        return scores(
            np.ascontiguousarray(x.T, dtype=np.float32),
            self.first_node,
            self.feature,
            self.threshold,
            self.nan_right,
            self.words,
            self.category_bits,
            self.keep,
            self.leaf_value,
            kind(MAGIC[kind]),
            kind(SHIFT[kind]),
            POSITIONS[kind],
        )


@dataclass(frozen=True)
class _Node:
    feature: int
    threshold: float
    nan_right: bool
    categories: list[int]
    keep: int


@dataclass(frozen=True)
class _Tree:
    nodes: list[_Node]
    values: list[float]

    @classmethod
    def parse(cls, fields: dict[str, str]) -> "_Tree":
        values = _numbers(fields, "leaf_value", float)
        if int(fields.get("is_linear", "0")):
            raise UnsupportedTreeError("a tree has linear models in its leaves")
        if int(fields["num_leaves"]) == 1:
            return cls([], values)
        left, right = _numbers(fields, "left_child", int), _numbers(fields, "right_child", int)
        thresholds = _numbers(fields, "threshold", float)
        starts, words = (
            _numbers(fields, "cat_boundaries", int),
            _numbers(fields, "cat_threshold", int),
        )
        place: dict[int, int] = {}  # leaf -> its number from left to right
        removed = [0] * len(left)  # leaves of the left subtree, as bits
        for node, leaf_below in _leaves_in_order(left, right):
            bit = 1 << place.setdefault(leaf_below, len(place))
            for parent in node:
                removed[parent] |= bit
        nodes = []
        for i, (feature, kind) in enumerate(
            zip(
                _numbers(fields, "split_feature", int),
                _numbers(fields, "decision_type", int),
                strict=True,
            )
        ):
            missing = kind >> 2 & 3
            if kind & CATEGORICAL:
                of = int(thresholds[i])
                categories = words[starts[of] : starts[of + 1]]
                nodes.append(_Node(feature, 0.0, True, categories, ~removed[i]))
                continue
            if missing == MISSING_ZERO:
                raise UnsupportedTreeError("a node treats 0 as missing")
            # If a feature had no missing values in training, LightGBM reads NaN as 0.
            nan_right = not kind & DEFAULT_LEFT if missing == MISSING_NAN else thresholds[i] < 0
            nodes.append(_Node(feature, thresholds[i], nan_right, [], ~removed[i]))
        return cls(nodes, [values[leaf] for leaf in sorted(place, key=place.__getitem__)])


def _leaves_in_order(left: list[int], right: list[int]) -> Iterator[tuple[list[int], int]]:
    """Yield each leaf from left to right, with the nodes whose left subtree contains it.

    Children below 0 are leaves: ~child is the leaf's index.
    """
    stack: list[tuple[int, list[int]]] = [(0, [])]
    while stack:
        child, under = stack.pop()
        if child < 0:
            yield under, ~child
            continue
        stack.append((right[child], under))
        stack.append((left[child], [*under, child]))


def _fields(text: str) -> dict[str, str]:
    lines = (line.partition("=") for line in text.split("\n"))
    return {name: value for name, sign, value in lines if sign}


def _numbers(fields: dict[str, str], name: str, convert: Callable[[str], T]) -> list[T]:
    return [convert(each) for each in fields.get(name, "").split()]


def _float32_below(values: np.ndarray) -> np.ndarray:
    """Return, for each float64, the largest float32 that is not above it."""
    rounded = values.astype(np.float32)
    return np.where(rounded > values, np.nextafter(rounded, np.float32(-np.inf)), rounded)
