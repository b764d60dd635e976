"""Shared by all tests: the profiles of hypothesis, and the relative difference of tensors.

`HYPOTHESIS_PROFILE=long` tries 2,000 examples instead of 300, with a new seed each time.
"""

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture)

settings.register_profile(
    "short", max_examples=300, deadline=None, derandomize=True, suppress_health_check=_QUIET
)
settings.register_profile("long", max_examples=2000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


@pytest.fixture(scope="session")
def differ() -> Callable[[Any, Any], float]:
    """A function that returns the distance of two tensors relative to the norm of the second."""
    return lambda ours, theirs: ((ours - theirs).norm() / theirs.norm()).item()
