"""Pairs of coalitions at work: masked rows, differences of answers, products with operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tidegauge import _core
from tidegauge.explain.operators import FloatArray, Split, product

Link = Literal["identity", "logit"]
Pairs = tuple[int, int]


class Coalitions(Protocol):
    """Designs of pairs and the background rows that each pair meets.

    Rows, inputs, answers and differences are arrays of where the work is done; every place gives
    the same bits.
    """

    def n_inputs(self, pairs: Pairs) -> int:
        """Rows of the model's input that these pairs of one row take."""

    def fill(
        self,
        pairs: Pairs,
        rows: Any,
        masked: Any,
        *,
        designs: NDArray[np.int32],
        labels: NDArray[np.int32],
    ) -> None:
        """Write the masked rows of these pairs, values taken as bits."""

    def differences(self, n_rows: int, n_outputs: int) -> Any:
        """Room for the differences of all pairs of some rows."""

    def part(self, differences: Any, rows: slice) -> Any:
        """Return the room of some of the rows."""

    def reduce(self, pairs: Pairs, answers: Any, link: Link, differences: Any) -> None:
        """Half the differences of the linked means of these pairs, from the model's answers."""

    def multiply(
        self, differences: Any, operators: Sequence[FloatArray], designs: NDArray[np.int32]
    ) -> FloatArray:
        """Differences of each row times the operator of its design, [rows, outputs, width]."""

    def fetch(self, differences: Any) -> FloatArray:
        """Return differences as an array of the host, [rows, outputs, pairs]."""


@dataclass(frozen=True, slots=True)
class HostCoalitions:
    """Pairs for which the core works, on the host."""

    core: _core.Coalitions
    n_pairs: int
    weights: FloatArray  # of each background row in its group
    background: NDArray[Any]  # its rows as bits, group by group

    @classmethod
    def of(
        cls, masks: NDArray[np.uint64], split: Split, background: NDArray[Any]
    ) -> HostCoalitions:
        """Return pairs from their masks[designs, pairs, words]."""
        core = _core.Coalitions(masks, split.starts.tolist())
        return cls(core, masks.shape[1], split.weights, background)

    def n_inputs(self, pairs: Pairs) -> int:
        """Rows of the model's input that these pairs of one row take."""
        return self.core.n_inputs(pairs)

    def fill(
        self,
        pairs: Pairs,
        rows: NDArray[Any],
        masked: NDArray[Any],
        *,
        designs: NDArray[np.int32],
        labels: NDArray[np.int32],
    ) -> None:
        """Write the masked rows of these pairs, values taken as bits."""
        self.core.fill(pairs, rows, self.background, designs, labels, masked)

    def differences(self, n_rows: int, n_outputs: int) -> FloatArray:
        """Room for the differences of all pairs of some rows."""
        return np.empty((n_rows, n_outputs, self.n_pairs))

    def part(self, differences: FloatArray, rows: slice) -> FloatArray:
        """Return the room of some of the rows."""
        return differences[rows]

    def reduce(
        self, pairs: Pairs, answers: NDArray[Any], link: Link, differences: FloatArray
    ) -> None:
        """Half the differences of the linked means of these pairs, from the model's answers."""
        asked = answers[: len(differences) * self.core.n_inputs(pairs)]
        self.core.reduce(pairs, asked, self.weights, link, differences)

    def multiply(
        self,
        differences: FloatArray,
        operators: Sequence[FloatArray],
        designs: NDArray[np.int32],
    ) -> FloatArray:
        """Differences of each row times the operator of its design, [rows, outputs, width]."""
        n, n_outputs, depth = differences.shape
        products = np.empty((n, n_outputs, operators[0].shape[1]))
        for design in np.unique(designs):
            rows = np.flatnonzero(designs == design)
            found = product(differences[rows].reshape(-1, depth), operators[design])
            products[rows] = found.reshape(len(rows), n_outputs, -1)
        return products

    def fetch(self, differences: FloatArray) -> FloatArray:
        """Return differences as an array of the host, [rows, outputs, pairs]."""
        return differences
