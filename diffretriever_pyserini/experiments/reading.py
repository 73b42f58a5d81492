"""Experiments from YAML files: those in ``prebuilt_configs/runs``, and the user's own."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ConfigError, InputError
from ..model.config import RetrieverConfig
from ..model.prebuilt import paths_near, prebuilt_dir, read_yaml
from ..settings import check_names, checked
from .records import BM25, Collection, Experiment, Row, Size

_COLLECTIONS = "collections"
_REQUIRED = dataclasses.MISSING


def list_experiments() -> dict[str, Experiment]:
    """Every experiment that ships with the package, by name."""
    return {path.stem: _read(path) for path in _files()}


def read_experiment(name: str) -> Experiment:
    """The experiment ``name``, or of a YAML file.

    Raises
    ------
    InputError
        When there is no such experiment or file.
    ConfigError
        For an unknown, missing or invalid setting; the message names the file and the row.

    Examples
    --------
    >>> from diffretriever_pyserini.experiments import read_experiment
    >>> row = read_experiment("bm25").rows[1]
    >>> row.collection, row.measure, row.published
    ('msmarco-dev', 'R@1000', 0.8526)
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise InputError(
                f"{name}: no such file; give a YAML file or a name that `diffretriever reproduce list` shows."
            )
        return _read(path)
    known = {path.stem: path for path in _files()}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else "`diffretriever reproduce list` shows all."
        raise InputError(f"there is no experiment {name!r}; {hint}")
    return _read(known[name])


def with_folders(experiment: Experiment, folders: Mapping[str, Path]) -> Experiment:
    """``experiment`` with some of its collections read from folders in BEIR layout."""
    for name in folders:
        _known_collection(experiment, name, "--folder")
    bound = {name: replace(experiment.collections[name], folder=folder) for name, folder in folders.items()}
    return replace(experiment, collections={**experiment.collections, **bound})


def unnamed(experiment: Experiment) -> dict[str, Path]:
    """The collections that must be given as folders, each with a folder of its name, to show what would run."""
    used = {name for row in experiment.rows for name in _names(experiment, row)}
    collections = {name: experiment.collections[name] for name in sorted(used)}
    return {name: Path(name) for name, one in collections.items() if not one.mean_of and one.corpus_source() is None}


def selected(experiment: Experiment, collections: Iterable[str] = (), modes: Iterable[str] = ()) -> tuple[Row, ...]:
    """The rows of some collections and modes; none named is all.

    Raises
    ------
    InputError
        For a collection or mode that no row has.
    """
    wanted, wanted_modes = list(collections), list(modes)
    for name in wanted:
        _known_collection(experiment, name, "--collections")
    inner = {one for name in wanted for one in (name, *experiment.collections[name].mean_of)}
    rows = tuple(row for row in experiment.rows if not wanted or row.collection in inner)
    for mode in wanted_modes:
        if mode not in {row.mode for row in rows}:
            known = ", ".join(dict.fromkeys(row.mode for row in rows))
            raise InputError(f"--modes {mode}: {experiment.name} has no such row; its modes are {known}.")
    return tuple(row for row in rows if not wanted_modes or row.mode in wanted_modes)


def _known_collection(experiment: Experiment, name: str, option: str) -> None:
    used = {inner for row in experiment.rows for inner in _names(experiment, row)}
    if name not in used:
        raise InputError(
            f"{option} {name}: {experiment.name} has no such collection; it has {', '.join(sorted(used))}."
        )


def _names(experiment: Experiment, row: Row) -> tuple[str, ...]:
    return (row.collection, *experiment.collections[row.collection].mean_of)


def _files() -> list[Path]:
    paths = (prebuilt_dir() / "runs").glob("*.yaml")
    return sorted(path for path in paths if path.stem != _COLLECTIONS)


def _read(path: Path) -> Experiment:
    values = read_yaml(path)
    named = _mapping(values.pop("collections", {}), f"{path}, collections")
    collections = known_collections()
    collections |= {name: _collection(path, name, entry) for name, entry in named.items()}
    rows = values.pop("rows", None)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: rows is missing; give a list of collection, mode and published.")
    numbered = [record(Row, row, f"{path}, row {number}") for number, row in enumerate(rows, start=1)]
    if isinstance(values.get("config"), dict):
        values["config"] = paths_near(path, values["config"])
    values |= {"name": path.stem, "rows": tuple(numbered), "collections": collections}
    if values.get("size") is not None:
        values["size"] = record(Size, values["size"], f"{path}, size")
    check_names(Experiment, values, where=str(path))
    nested = {name: values.pop(name) for name in ("rows", "collections", "size") if name in values}
    plain = checked(Experiment, values, ConfigError, str(path))
    _require(Experiment, plain | nested, str(path))
    return _consistent(Experiment(**plain, **nested), path)


def known_collections() -> dict[str, Collection]:
    """The collections of ``prebuilt_configs/runs/collections.yaml``, by name."""
    path = prebuilt_dir() / "runs" / f"{_COLLECTIONS}.yaml"
    return {name: _collection(path, name, entry) for name, entry in read_yaml(path).items()}


def _collection(path: Path, name: str, entry: object) -> Collection:
    collection = record(Collection, entry, f"{path}, collection {name}")
    if collection.folder is not None and not collection.folder.is_absolute():
        return replace(collection, folder=path.parent / collection.folder.expanduser())
    return collection


def _consistent(experiment: Experiment, path: Path) -> Experiment:
    """Check what no single record can: names of collections, and that there is one model where a row needs one."""
    for number, row in enumerate(experiment.rows, start=1):
        if row.collection not in experiment.collections:
            near = difflib.get_close_matches(row.collection, experiment.collections, n=1)
            hint = f"did you mean {near[0]}?" if near else "add it under collections."
            raise ConfigError(f"{path}, row {number}: there is no collection {row.collection!r}; {hint}")
        for inner in experiment.collections[row.collection].mean_of:
            if (inner, row.mode) not in {(one.collection, one.mode) for one in experiment.rows}:
                raise ConfigError(f"{path}, row {number}: the mean needs a row of {inner} in mode {row.mode}.")
    if (experiment.model is None) == (experiment.config is None) and any(row.mode != BM25 for row in experiment.rows):
        raise ConfigError(f"{path}: give either model (a name) or config (settings of a model).")
    check_names(RetrieverConfig, experiment.config or {}, where=f"{path}, config")
    checked(RetrieverConfig, experiment.config or {}, ConfigError, f"{path}, config")
    return experiment


def record[Record](kind: type[Record], values: object, where: str) -> Record:
    """The dataclass instance ``kind`` of ``values``; ConfigError that begins with ``where``."""
    fields = checked(kind, _mapping(values, where), ConfigError, where)
    _require(kind, fields, where)
    try:
        return kind(**fields)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _require(kind: type, fields: Mapping[str, Any], where: str) -> None:
    for one in dataclasses.fields(kind):
        if one.default is _REQUIRED and one.default_factory is _REQUIRED and one.name not in fields:
            raise ConfigError(f"{where}: {one.name} is missing.")


def _mapping(values: object, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: expected a mapping of settings, found {values!r:.60}.")
    return values
