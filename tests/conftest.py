"""Settings that every test shares: reproducible examples, and the engines to run on."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default",
    deadline=None,  # two shared cores: time says nothing
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    max_examples=40,
)
settings.register_profile(
    "ci", settings.get_profile("default"), derandomize=True, database=None, print_blob=True
)
settings.register_profile(
    "sanitize",
    settings.get_profile("ci"),
    max_examples=10,  # the checked build is slow
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=["cpu"])
def engine(request: pytest.FixtureRequest) -> str:
    """Every device that the same test body must pass on."""
    return str(request.param)
