"""LORD++: equal to its formula and to another's, in one go or in parts; few false discoveries."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference
from online_fdr.p_values.investing.lord.plus_plus import LordPlusPlus

from tidegauge.alerts import lord as module
from tidegauge.alerts.lord import Lord


def stream(seed: int, n: int, share: float):
    random = np.random.default_rng(seed)
    real = random.uniform(size=n) < share
    return np.where(real, 1e-6, 1.0) * random.uniform(size=n), real


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_levels_are_those_of_the_formula_and_of_another_implementation(share: float) -> None:
    p, _ = stream(0, 800, share)
    levels = Lord(rate=0.05).test(p)
    np.testing.assert_allclose(levels, reference.lord_levels(p, 0.05), rtol=1e-10)
    other = LordPlusPlus(0.05, 0.025)
    assert (p <= levels).tolist() == [other.test_one(float(each)) for each in p]


def test_parts_and_a_restart_change_nothing_and_nan_is_no_test() -> None:
    p, _ = stream(1, 500, 0.1)
    whole = Lord(rate=0.05).test(p)
    lord, found = Lord(rate=0.05), []
    for at in range(0, 500, 37):
        lord = Lord(**json.loads(json.dumps(lord.to_dict())))
        found.append(lord.test(p[at : at + 37]))
    np.testing.assert_allclose(np.concatenate(found), whole, rtol=1e-12)
    gaps = np.insert(p, [0, 3, 500], np.nan)
    levels = Lord(rate=0.05).test(gaps)
    assert np.isnan(levels[np.isnan(gaps)]).all()
    np.testing.assert_array_equal(levels[~np.isnan(gaps)], whole)


def test_few_discoveries_are_false_and_in_noise_there_are_hardly_any() -> None:
    shares = []
    for seed in range(20):
        p, real = stream(seed, 2000, 0.05)
        found = p <= Lord(rate=0.05).test(p)
        assert found[real].mean() > 0.8
        shares.append((found & ~real).sum() / max(found.sum(), 1))
    assert np.mean(shares) < 0.05
    noise = [
        (p <= Lord(rate=0.05).test(p)).any() for p, _ in (stream(s, 500, 0.0) for s in range(300))
    ]
    assert np.mean(noise) < 0.08


def test_discoveries_of_long_ago_are_forgotten_towards_lower_levels(monkeypatch) -> None:
    p, _ = stream(2, 400, 0.2)
    whole = Lord(rate=0.05).test(p)
    monkeypatch.setattr(module, "REMEMBERED", 5)
    lord = Lord(rate=0.05)
    short = np.concatenate([lord.test(p[at : at + 20]) for at in range(0, 400, 20)])
    assert (short <= whole + 1e-15).all()
    assert (short < whole).any()
    assert len(lord.found) == 5
