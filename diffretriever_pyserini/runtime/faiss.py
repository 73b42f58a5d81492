"""Which FAISS is installed: faiss-cpu and faiss-gpu share the folder ``faiss``, so only one may be installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class FaissInstallation:
    """The versions of the FAISS distributions in this environment, by name."""

    distributions: dict[str, str]

    @property
    def conflict(self) -> bool:
        """Whether several distributions are installed: the later ones have overwritten files of the earlier ones."""
        return len(self.distributions) > 1

    @property
    def remedy(self) -> str:
        """The command that corrects the installation; empty if it is correct."""
        names = sorted(self.distributions)
        if self.conflict:
            keep = next((name for name in names if name.startswith("faiss-gpu")), names[0])
            return f"run `pip uninstall -y {' '.join(names)}` and then `pip install --no-deps {keep}`"
        return "" if names else "run `pip install faiss-gpu` (Linux on x86-64) or `pip install faiss-cpu`"


def said(error: Exception) -> str:
    """Return the message of a FAISS error, without the C++ source location."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    return re.sub(r"^Error: .*? failed: ", "", text) or type(error).__name__


def faiss_installation() -> FaissInstallation:
    """Read the metadata of the installed distributions, without importing FAISS."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(("faiss-cpu", "faiss-gpu")):
            versions.setdefault(name, distribution.version)
    return FaissInstallation(versions)
