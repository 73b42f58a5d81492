"""The folders of an index and the encoder that made them; nothing heavy is opened here."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from ..errors import BUILD_AGAIN, InputError, reason
from ..files.atomic import read_json
from ..files.folders import restore, restore_folder
from ..indexes.job import FORMAT
from ..indexes.job import INDEX as FILE_NAME
from ..indexes.multivector.manifest import MANIFEST, is_multi, read_manifest
from ..model.provenance import Provenance, read_provenance
from ..store.index_record import read_index_record
from ..store.spec import SPEC, read_spec
from ..store.store import Store
from .options import BM25, Signal

SIGNALS = get_args(Signal)
MODES = (*SIGNALS, "hybrid")


@dataclass(frozen=True)
class IndexFolder:
    """What is known of an index before it is opened.

    Attributes
    ----------
    name : its name in messages.
    dense, lexical : a FAISS folder of Pyserini's layout and a Lucene impact index, or None.
    multi : a folder of compressed vectors, or a store, which is searched exactly; or None.
    text : a Lucene index of the texts, for BM25 and for showing them; or None. It is never in shards.
    provenance : the encoder that made it, None where the folders do not say.
    passages : size of the collection, None where that is not known before the index is opened.
    shards : the indexes of which this one consists; then it has no folders of its own.
    parts : which parts of a store are searched (the first, and the one after the last); None for all.
    max_length : tokens of prompt and text of its passages, None where the folders do not say.
    """

    name: str
    dense: Path | None
    lexical: Path | None
    provenance: Provenance | None = None
    passages: int | None = None
    multi: Path | None = None
    text: Path | None = None
    shards: tuple[IndexFolder, ...] = ()
    parts: tuple[int, int] | None = None
    max_length: int | None = None

    @property
    def record_name(self) -> str:
        """What names the encoder."""
        return f"{self.name}/{FILE_NAME}"

    def folders(self, signal: str) -> tuple[Path, ...]:
        """The folders of ``signal``: one, one per shard, or none."""
        if self.shards and signal != BM25:
            return tuple(path for shard in self.shards for path in shard.folders(signal))
        path = getattr(self, _part(signal))
        return () if path is None else (path,)

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of searching that this index allows, besides other combinations of its signals."""
        signals = tuple(signal for signal in SIGNALS if self.folders(signal))
        return (*signals, "hybrid") if "lexical" in signals and {"dense", "multi"} & set(signals) else signals

    def mode(self, requested: str | None) -> str:
        """``requested``, or for None hybrid where that is possible, else the model's one signal (multi before dense).

        Raises
        ------
        InputError
            For an unknown mode, or one whose signal is missing.
        """
        if requested is None:
            return next((mode for mode in reversed(self.modes) if mode != BM25), BM25)
        for signal in self._parse_mode(requested):
            if not self.folders(signal):
                why = None if self.provenance is None else self.provenance.terms_refused
                if signal == "lexical" and why:
                    raise InputError(f"{self.name} cannot be searched in mode {requested}: {why}.")
                part = _part(signal)
                raise InputError(
                    f"{self.name} has no {signal} signal, so it cannot be searched in mode {requested}: build it with "
                    f"`diffretriever index --{part}`, give it with --{part}-index, or search with "
                    f"--mode {self.modes[0]}."
                )
        return requested

    def signals(self, mode: str) -> tuple[str, ...]:
        """The signals that ``mode`` searches, in the order of fusion. Hybrid is multi (else dense) and lexical."""
        return self._parse_mode(self.mode(mode))

    @property
    def without_texts(self) -> str:
        """Why titles and texts are not shown, and what to do."""
        if self.shards or not Path(self.name, FILE_NAME).is_file():
            build, use = "--output DIR --text", ", and add --text-index DIR/text to the search"
        else:
            build, use = f"--output {shlex.quote(self.name)} --text", ""
        return (
            "Titles and texts are not shown, as there is no index of them: build one with "
            f"`diffretriever index --store STORE {build}`{use}."
        )

    def _parse_mode(self, mode: str) -> tuple[str, ...]:
        if mode == "hybrid":
            return ("multi" if self.folders("multi") else "dense", "lexical")
        names = mode.split(",")
        if len(set(names)) < len(names):
            raise InputError(f"mode {mode!r} names a signal twice.")
        if any(name not in SIGNALS for name in names):
            raise InputError(f"mode {mode!r} is not one of {', '.join(MODES)}, nor a comma-separated list of signals.")
        return tuple(signal for signal in SIGNALS if signal in names)


def read_index(path: str | Path) -> IndexFolder:
    """Read the ``index.json`` of a folder that ``diffretriever index`` made.

    Raises
    ------
    InputError
        When the folder is not an index, has another format, or lacks a part that it names.
    """
    folder = Path(path).expanduser()
    restore_folder(folder, FILE_NAME)
    record_file = folder / FILE_NAME
    if (folder / SPEC).is_file():
        return _store_as_index(folder)
    if not record_file.is_file():
        incomplete = f"it holds no {FILE_NAME}; was building the index interrupted?"
        raise InputError(f"{folder} is not an index of `diffretriever index`: {_what_it_is(folder, incomplete)}")
    record = read_json(record_file, BUILD_AGAIN)
    if record.get("format") != FORMAT:
        raise InputError(
            f"{record_file}: format {record.get('format')} is not the format {FORMAT} that this version reads; "
            f"{BUILD_AGAIN}, or search with the version that built it."
        )
    provenance = read_provenance(record.get("provenance"), record_file)
    root = folder.absolute()  # the parts are opened when first used, perhaps in another directory
    if record.get("shards") is not None:
        return _sharded(folder, record, provenance)
    try:
        index = IndexFolder(
            str(folder),
            root / "dense" if record["dense"] is not None else None,
            root / "lexical" if record["lexical"] is not None else None,
            provenance,
            int(record["passages"]),
            root / "multi" if record.get("multi") is not None else None,
            root / "text" if record.get("text") is not None else None,
            max_length=record.get("max_length"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record_file}: damaged ({reason(error)}); {BUILD_AGAIN}.") from error
    if not index.modes:
        raise InputError(f"{record_file} names no signal; {BUILD_AGAIN}.")
    _check_signals(index)
    return index


def _sharded(folder: Path, record: dict[str, Any], provenance: Provenance) -> IndexFolder:
    """An index in shards, each of which must be the one that was built with the others."""
    damaged = f"{folder / FILE_NAME}: damaged, or of other shards"
    shards = []
    try:
        for entry in record["shards"]:
            path = folder / str(entry["folder"])
            one = read_json(path / FILE_NAME, BUILD_AGAIN)
            if (one.get("passages"), one.get("store")) != (entry["passages"], entry["store"]):
                raise InputError(f"{path} is not the shard that {folder / FILE_NAME} names; {BUILD_AGAIN}.")
            shards.append(read_index(path))
        passages, max_length = int(record["passages"]), record.get("max_length")
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{damaged} ({reason(error)}); {BUILD_AGAIN}.") from error
    if sum(shard.passages or 0 for shard in shards) != passages or len({shard.modes for shard in shards}) != 1:
        raise InputError(f"{damaged} (their passages or signals differ); {BUILD_AGAIN}.")
    return IndexFolder(str(folder), None, None, provenance, passages, shards=tuple(shards), max_length=max_length)


def _store_as_index(folder: Path) -> IndexFolder:
    """A store as an index whose one signal is multi."""
    spec = read_spec(folder)
    return IndexFolder(str(folder), None, None, spec.provenance, multi=folder.absolute(), max_length=spec.max_length)


def divided(index: IndexFolder, count: int) -> IndexFolder:
    """Return a store as an index of ``count`` shards (fewer if it has fewer parts), another index as it is."""
    if index.shards or index.multi is None or not (index.multi / SPEC).is_file():
        return index
    store, shards = Store(index.multi), []
    for portion in store.portions(max(1, min(count, sum(map(bool, map(len, store.parts)))))):
        first = int(portion.parts[0].header["part"])
        parts = (first, first + len(portion.parts))
        shards.append(replace(index, passages=len(portion), parts=parts))
    return replace(index, multi=None, passages=len(store), shards=tuple(shards))


def _part(signal: str) -> str:
    """The name of a signal's folder in an index, and in options."""
    return "text" if signal == BM25 else signal


def separate_folders(
    dense: str | Path | None = None,
    lexical: str | Path | None = None,
    multi: str | Path | None = None,
    text: str | Path | None = None,
) -> IndexFolder:
    """Signals in separate folders: FAISS (``index``, ``docid``), Lucene (an impact index), multi-vector index or store.

    ``text`` is a Lucene index for BM25, of this package or Pyserini's; with ``--storeRaw`` it also has the texts.

    Raises
    ------
    InputError
        When none is given, or one holds something else.
    """
    folders = [Path(folder).expanduser() if folder is not None else None for folder in (dense, lexical, multi, text)]
    if not any(folders):
        raise InputError(
            "no index: give --index, or one or more of --dense-index, --multi-index, --lexical-index and --text-index."
        )
    for folder in folders:
        if folder is not None:
            restore(folder)
    name = " and ".join(str(folder) for folder in folders if folder)
    dense, lexical, multi, text = (folder.absolute() if folder is not None else None for folder in folders)
    index = IndexFolder(name, dense, lexical, multi=multi, text=text)
    _check_signals(index)
    if index.multi is not None:
        if is_multi(index.multi):
            return replace(index, provenance=read_manifest(index.multi).provenance)
        spec = read_spec(index.multi)
        return replace(index, provenance=spec.provenance, max_length=spec.max_length)
    return index


def with_texts(index: IndexFolder, text: str | Path) -> IndexFolder:
    """Return ``index`` with the Lucene index ``text`` for BM25 and for showing texts.

    Raises
    ------
    InputError
        When ``text`` is something else.
    """
    return replace(index, text=separate_folders(text=text).text)


def _check_signals(index: IndexFolder) -> None:
    if index.dense is not None and not _is_faiss(index.dense):
        raise InputError(f"{index.dense} is not a FAISS folder (files index and docid): {_what_it_is(index.dense)}")
    if index.lexical is not None and not _is_lucene(index.lexical):
        raise InputError(f"{index.lexical} is not a Lucene index (files segments_*): {_what_it_is(index.lexical)}")
    if index.text is not None and not _is_lucene(index.text):
        raise InputError(f"{index.text} is not a Lucene index (files segments_*): {_what_it_is(index.text)}")
    if index.text is not None and read_index_record(index.text) is not None:
        raise InputError(f"{index.text} holds a model's term weights, not texts: give it with --lexical-index.")
    if index.multi is not None and not is_multi(index.multi) and not (index.multi / SPEC).is_file():
        raise InputError(f"{index.multi} is not a multi-vector index (file {MANIFEST}): {_what_it_is(index.multi)}")


def _is_faiss(folder: Path) -> bool:
    return (folder / "index").is_file() and (folder / "docid").is_file()


def _is_lucene(folder: Path) -> bool:
    return any(folder.glob("segments_*"))


def check_part(folder: str | Path, part: str) -> None:
    """Raise InputError unless ``folder`` is the ``part`` (dense, lexical) of an index that a Pyserini command takes.

    The message says what the folder is and what to name instead.
    """
    path = Path(folder)
    if (path / FILE_NAME).is_file():
        if shards := sorted((path / "shards").glob("*")):
            raise InputError(
                f"{folder} is an index in {len(shards)} shards, and Pyserini's commands read one at a time: name "
                f"{shards[0] / part}, or use `diffretriever search`, which reads all."
            )
        parts = " and ".join(str(path / name) for name in map(_part, SIGNALS) if (path / name).is_dir())
        remedy = f"name {path / part}" if (path / part).is_dir() else f"it has no {part} signal, only {parts}"
        raise InputError(
            f"{folder} is an index of `diffretriever index`, and this command takes one part of it: {remedy}."
        )
    if not path.is_dir():
        raise InputError(f"{folder}: {_what_it_is(path)}")
    if part == "dense" and not (path / "index").is_file():
        lucene = "; it is a Lucene index" if _is_lucene(path) else ""
        raise InputError(f"{folder} is not a FAISS folder{lucene}: name the folder that holds index and docid.")
    if part == "lexical" and not _is_lucene(path):
        raise InputError(
            f"{folder} is not a Lucene index: name the folder of the impact index, which holds segments_*."
        )


def _what_it_is(folder: Path, unknown: str = f"these files are missing; {BUILD_AGAIN}.") -> str:
    """What ``folder`` is instead, and what to do; ``unknown`` where it is nothing that we know."""
    if not folder.is_dir():
        return "it is a file; name the folder." if folder.exists() else "there is no such folder."
    if _is_faiss(folder):
        return "it is a FAISS folder of Pyserini's own commands; give it with --dense-index and name the --encoder."
    if _is_lucene(folder):
        return (
            "it is a Lucene index of Pyserini's own commands; give it with --lexical-index and name the --encoder, "
            "or with --text-index if it holds texts."
        )
    if is_multi(folder):
        return "it is a multi-vector index; give it with --multi-index."
    if (folder / FILE_NAME).is_file():
        return "it is an index of `diffretriever index`; give it with --index."
    if (folder / SPEC).is_file():
        return "it is a store; build an index from it with `diffretriever index --store STORE --output INDEX`."
    missing = [name for name in ("index", "docid") if not (folder / name).is_file()]
    if len(missing) == 1:
        return f"the file {missing[0]} is missing; {BUILD_AGAIN}."
    return unknown
