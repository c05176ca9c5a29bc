"""LORD++: discoveries in an endless stream of tests, at a bounded rate of false ones.

Source: A. Ramdas, F. Yang, M. Wainwright, M. Jordan, NeurIPS 2017; the sequence of shares is that
of A. Javanmard and A. Montanari, Annals of Statistics 46 (2018).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tidegauge.alerts.series import FloatArray

REMEMBERED = 1000  # latest discoveries that later tests still gain from


@dataclass
class Lord:
    """The levels of tests that come one after another, of which a share `rate` may be false.

    Each test spends some of the wealth, each discovery earns some back, so that levels rise where
    there is much to find and shrink where there is nothing: among tests of nothing but noise the
    chance of any discovery, ever, is `rate`. Of discoveries further back than the latest
    `REMEMBERED`, tests no longer gain, which makes levels smaller and the bound no weaker.

    >>> lord = Lord(rate=0.05)
    >>> levels = lord.test(np.array([0.5, 1e-6, 0.5]))
    >>> [f"{level:.5f}" for level in levels]
    ['0.00134', '0.00029', '0.00159']
    >>> lord.tests, lord.found
    (3, [2])
    """

    rate: float
    tests: int = 0
    first: int | None = None  # the number of the first discovery
    found: list[int] = field(default_factory=list)  # the latest

    def test(self, p_values: FloatArray) -> FloatArray:
        """Test some more, in order; the level of each, NaN where there is no p-value.

        What is at most its level is a discovery.
        """
        levels = np.full(len(p_values), np.nan)
        tested = np.flatnonzero(~np.isnan(p_values))
        p = p_values[tested]
        number = self.tests + 1 + np.arange(len(p))
        level = self.rate / 2 * _share(number)
        for discovery in self.found:
            level += self._earned(discovery) * _share(number - discovery)
        done = 0
        while len(ahead := np.flatnonzero(p[done:] <= level[done:])):
            done += int(ahead[0]) + 1
            discovery = self.tests + done
            self.first = discovery if self.first is None else self.first
            self.found.append(discovery)
            level[done:] += self._earned(discovery) * _share(number[done:] - discovery)
        self.tests += len(p)
        del self.found[:-REMEMBERED]
        levels[tested] = level
        return levels

    def _earned(self, discovery: int) -> float:
        return self.rate / 2 if discovery == self.first else self.rate

    def to_dict(self) -> dict[str, Any]:
        """Everything it knows, for JSON; `Lord(**...)` goes on from there."""
        return {
            "rate": self.rate,
            "tests": self.tests,
            "first": self.first,
            "found": list(self.found),
        }


def _share(tests: npt.NDArray[Any]) -> FloatArray:
    """Share of the wealth that goes to the test so many places on; all shares add up to 1."""
    log = np.log(tests)
    share: FloatArray = 0.07720838 * np.maximum(log, np.log(2)) / (tests * np.exp(np.sqrt(log)))
    return share
