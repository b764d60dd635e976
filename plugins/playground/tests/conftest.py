import sys
from pathlib import Path

import pytest

TRAINING = Path(__file__).parents[1] / "training"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch):
    """Makes the scripts of training importable for a test, and unloads them afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(TRAINING)
    yield
    for name in set(sys.modules) - before:
        if TRAINING in Path(str(getattr(sys.modules[name], "__file__", None))).parents:
            del sys.modules[name]
