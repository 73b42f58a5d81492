"""Settings from YAML files: the prebuilt configs that ship with the package, and the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError, DiffRetrieverError
from ..files.atomic import read_json
from ..files.installed import installed_folder

DEFAULT_NAME = "diffretriever-mini"


def prebuilt_dir() -> Path:
    """The folder of prebuilt configurations (``models/*.yaml``, ``checkpoints/``).

    Raises
    ------
    DiffRetrieverError
        When it is missing, because the installation is incomplete.
    """
    folder = installed_folder("prebuilt_configs")
    if (folder / "models").is_dir():
        return folder
    raise DiffRetrieverError(
        f"the prebuilt configurations are missing ({folder} does not have them). "
        "The installation is incomplete; install the package again."
    )


def list_prebuilt() -> dict[str, dict[str, Any]]:
    """Every prebuilt config by name, as written in ``prebuilt_configs/models/*.yaml`` (nothing is downloaded)."""
    return {path.stem: read_yaml(path) for path in sorted((prebuilt_dir() / "models").glob("*.yaml"))}


def prebuilt_values(name: str) -> dict[str, Any] | None:
    """Settings of the prebuilt config ``name`` (``diffretriever`` is short for the default), or None."""
    if name == "diffretriever":
        name = DEFAULT_NAME
    for candidate in (name, f"diffretriever-{name}"):
        path = prebuilt_dir() / "models" / f"{candidate}.yaml"
        if candidate == Path(candidate).name and path.is_file():
            return {"name": path.stem} | read_yaml(path)
    return None


def written_values(name: str) -> dict[str, Any] | None:
    """The settings that the prebuilt config or the YAML file ``name`` holds; None for a folder or a hub id.

    A prebuilt name wins over a folder or file of that name; ./name is the file. ConfigError for a file that is no YAML.
    """
    values, path = prebuilt_values(name), Path(name).expanduser()
    if values is None and path.is_file():
        if path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"{name}: a model is a folder, a hub id, a prebuilt name or a .yaml file, not this file.")
        values = read_yaml(path)
    return values


def written_hybrid_weight(name: str) -> float:
    """The ``hybrid_weight`` of model ``name`` as far as files on this machine say it, else the paper's 0.5."""
    values = written_values(name) or {}
    path = Path(str(values.get("adapter") or values.get("backbone") or name)).expanduser() / "retriever_config.json"
    of_checkpoint = read_json(path, error=ConfigError) if path.is_file() else {}
    return float(values.get("hybrid_weight") or of_checkpoint.get("hybrid_weight") or 0.5)


def read_yaml(path: Path) -> dict[str, Any]:
    """Settings in a YAML file; ``adapter`` and ``backbone`` folders may be relative to the file. Raises ConfigError."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected settings such as 'backbone: ...' and 'k_query: 4', found {values!r:.60}.")
    return paths_near(path, values)


def paths_near(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """``values`` with ``adapter`` and ``backbone`` made absolute where they name folders relative to the file."""
    near = {key: path.parent / str(values[key]) for key in ("adapter", "backbone") if values.get(key)}
    return values | {key: str(folder.resolve()) for key, folder in near.items() if folder.is_dir()}
