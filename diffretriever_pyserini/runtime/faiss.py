"""Which FAISS is installed: faiss-cpu and faiss-gpu share the folder ``faiss``, so only one may be installed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import metadata

from ..errors import reason


@dataclass(frozen=True)
class FaissInstallation:
    """FAISS in this environment.

    Attributes
    ----------
    version : of the imported module; empty if it cannot be imported.
    problem : why it cannot be imported.
    distributions : versions of the packages that installed it, by name; none if it came from elsewhere (conda).
    gpus : how many GPUs it sees.
    """

    version: str
    problem: str = ""
    distributions: dict[str, str] = field(default_factory=dict)
    gpus: int = 0

    @property
    def conflict(self) -> bool:
        """Whether several distributions are installed: the later ones have overwritten files of the earlier ones."""
        return len(self.distributions) > 1

    @property
    def remedy(self) -> str:
        """The command that corrects the installation; empty if it is correct."""
        names = sorted(self.distributions)
        if not names:
            return (
                "" if self.version else "run `pip install faiss-cpu` (on Linux x86-64 faiss-gpu, which uses GPUs, too)"
            )
        keep = next((name for name in names if name.startswith("faiss-gpu")), names[0])
        install = f"pip install --no-deps {keep}=={self.distributions[keep]}"
        return f"run `pip uninstall -y {' '.join(names)} && {install}`" if self.conflict or self.problem else ""

    def __str__(self) -> str:
        names = ", ".join(f"{name} {version}" for name, version in sorted(self.distributions.items()))
        seen = f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else "no GPU"
        return f"{names or self.version}, {seen}" if self.version else names


def said(error: Exception) -> str:
    """Return the message of a FAISS error, without the C++ source location."""
    text = " ".join(str(error).split())
    text = re.sub(r"^Error in .*? at \S+:\d+: ", "", text)
    return re.sub(r"^Error: .*? failed: ", "", text) or type(error).__name__


def faiss_installation() -> FaissInstallation:
    """Import FAISS, and read the metadata of the distributions that may have installed it."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower().replace("_", "-")
        if name.startswith(("faiss-cpu", "faiss-gpu")):
            versions.setdefault(name, distribution.version)
    try:
        import faiss

        return FaissInstallation(faiss.__version__, "", versions, faiss.get_num_gpus())
    except Exception as error:  # files of two packages mixed may fail in any way
        return FaissInstallation("", reason(error), versions)
