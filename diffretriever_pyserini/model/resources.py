"""Where the files that ship with the package lie, however it was installed."""

from __future__ import annotations

from pathlib import Path

from ..errors import DiffRetrieverError


def prebuilt_dir() -> Path:
    """The folder of prebuilt configurations (``models/*.yaml``, ``runs/*.yaml``, ``checkpoints/``).

    A wheel carries it inside the package; in a checkout (editable install, or PYTHONPATH) it is the top-level folder.

    Raises:
        DiffRetrieverError: neither place has it, so the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package / "prebuilt_configs", package.parent / "prebuilt_configs")
    for place in places:
        if (place / "models").is_dir():
            return place
    raise DiffRetrieverError(
        f"the prebuilt configurations are missing (looked in {places[0]} and {places[1]}): "
        "the installation is incomplete; install the package again."
    )
