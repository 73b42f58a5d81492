"""A tiny real model under a name of ours, loaded once."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_name(tiny_dream: Path) -> str:
    """Encoder name of a tiny Dream checkpoint with random weights, H = 64."""
    return f"diffretriever:{tiny_dream}"
