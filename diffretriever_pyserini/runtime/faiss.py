"""Which FAISS is installed: faiss-cpu and faiss-gpu both fill the folder ``faiss``, so only one may be installed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class FaissInstallation:
    """The FAISS distributions of this environment, by name → version."""

    distributions: dict[str, str]

    @property
    def conflict(self) -> bool:
        """Whether two distributions claim the same folder, so that the last one installed won, file by file."""
        return len(self.distributions) > 1

    @property
    def remedy(self) -> str:
        """What to run; "" where nothing is wrong."""
        names = sorted(self.distributions)
        if self.conflict:
            keep = next((name for name in names if name.startswith("faiss-gpu")), names[0])
            return f"run `pip uninstall -y {' '.join(names)}` and then `pip install --no-deps {keep}`"
        return "" if names else "run `pip install faiss-gpu` (Linux on x86-64) or `pip install faiss-cpu`"


def said(error: Exception) -> str:
    """What FAISS says in ``error``, without the C++ around it."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    return re.sub(r"^Error: .*? failed: ", "", text) or type(error).__name__


def faiss_installation() -> FaissInstallation:
    """Look at the installed distributions' metadata; FAISS itself is not imported."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(("faiss-cpu", "faiss-gpu")):
            found.setdefault(name, distribution.version)
    return FaissInstallation(found)
