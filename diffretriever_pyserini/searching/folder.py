"""Where the parts of an index lie and which encoder made them; nothing heavy is opened here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from ..errors import InputError, reason
from ..files.atomic import read_json, restore, restore_folder
from ..indexes.build import FORMAT
from ..indexes.build import INDEX as FILE_NAME
from ..indexes.multivector.manifest import MANIFEST, is_multi, read_manifest
from ..model.provenance import Provenance, read_provenance
from ..store.spec import SPEC, read_spec
from .options import Signal

SIGNALS = get_args(Signal)
MODES = (*SIGNALS, "hybrid")


@dataclass(frozen=True)
class IndexFolder:
    """What is known of an index before it is opened.

    Attributes
    ----------
    name : what messages call it.
    dense, lexical : a FAISS folder of Pyserini's layout and a Lucene impact index, or None.
    multi : a folder of compressed vectors, or a store, which is searched exactly; or None.
    made : the encoder that made it, None where the folders do not say.
    passages : size of the collection, None where that is not known before the index is opened.
    """

    name: str
    dense: Path | None
    lexical: Path | None
    made: Provenance | None = None
    passages: int | None = None
    multi: Path | None = None

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes of searching that this index allows, besides other combinations of its signals."""
        signals = tuple(signal for signal in SIGNALS if getattr(self, signal) is not None)
        return (*signals, "hybrid") if "lexical" in signals and len(signals) > 1 else signals

    def mode(self, asked: str | None) -> str:
        """``asked``, or hybrid where that is possible, else the one signal that is there (multi before dense).

        Raises
        ------
        InputError
            For an unknown mode, or one whose signal is missing.
        """
        if asked is None:
            return self.modes[-1]
        for signal in self._asked(asked):
            if getattr(self, signal) is None:
                raise InputError(
                    f"{self.name} has no {signal} signal, so it cannot be searched in mode {asked}: build it with "
                    f"`diffretriever index --{signal}`, give it with --{signal}-index, or search with "
                    f"--mode {self.modes[0]}."
                )
        return asked

    def signals(self, mode: str) -> tuple[str, ...]:
        """The signals that ``mode`` searches, in the order of fusion. Hybrid is multi (else dense) and lexical."""
        return self._asked(self.mode(mode))

    def _asked(self, mode: str) -> tuple[str, ...]:
        if mode == "hybrid":
            return ("multi" if self.multi is not None else "dense", "lexical")
        wanted = mode.split(",")
        if len(set(wanted)) < len(wanted):
            raise InputError(f"mode {mode!r} names a signal twice.")
        if any(signal not in SIGNALS for signal in wanted):
            raise InputError(f"mode {mode!r} is not one of {', '.join(MODES)}, nor signals with commas between them.")
        return tuple(signal for signal in SIGNALS if signal in wanted)


def read_index(path: str | Path) -> IndexFolder:
    """Read the ``index.json`` of a folder that ``diffretriever index`` made.

    Raises
    ------
    InputError
        When the folder is no index, was made in another format, or lacks a part that it names.
    """
    folder = Path(path).expanduser()
    restore_folder(folder, FILE_NAME)
    record_file = folder / FILE_NAME
    if (folder / SPEC).is_file():
        return _exact(folder)
    if not record_file.is_file():
        else_ = f"it holds no {FILE_NAME}; was the building of the index broken off?"
        raise InputError(f"{folder} is no index of `diffretriever index`: {_what_it_is(folder, else_)}")
    record = read_json(record_file, "build the index again")
    if record.get("format") != FORMAT:
        raise InputError(
            f"{record_file}: format {record.get('format')} is not the format {FORMAT} that this version reads; "
            "build the index again, or search with the version that built it."
        )
    made = read_provenance(record.get("provenance"), record_file)
    root = folder.absolute()  # they are opened when first used, maybe in another directory
    try:
        found = IndexFolder(
            str(folder),
            root / "dense" if record["dense"] is not None else None,
            root / "lexical" if record["lexical"] is not None else None,
            made,
            int(record["passages"]),
            root / "multi" if record.get("multi") is not None else None,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record_file}: damaged ({reason(error)}); build the index again.") from error
    if not found.modes:
        raise InputError(f"{record_file} names no signal; build the index again.")
    _check_signals(found)
    return found


def _exact(folder: Path) -> IndexFolder:
    """A store as an index of one signal."""
    return IndexFolder(str(folder), None, None, read_spec(folder).provenance, multi=folder.absolute())


def separate_folders(
    dense: str | Path | None = None, lexical: str | Path | None = None, multi: str | Path | None = None
) -> IndexFolder:
    """Signals that lie in folders of their own: FAISS (``index``, ``docid``), Lucene (an impact index), vectors.

    Raises
    ------
    InputError
        When none is given, or one is not what it should be.
    """
    folders = [Path(folder).expanduser() if folder is not None else None for folder in (dense, lexical, multi)]
    if folders == [None, None, None]:
        raise InputError(
            "no index: give --index, or --dense-index, --multi-index and --lexical-index, or some of these."
        )
    for folder in folders:
        if folder is not None:
            restore(folder)
    name = " and ".join(str(folder) for folder in folders if folder)
    dense, lexical, multi = (folder.absolute() if folder is not None else None for folder in folders)
    found = IndexFolder(name, dense, lexical, multi=multi)
    _check_signals(found)
    if found.multi is not None:
        multi_record = read_manifest(found.multi) if is_multi(found.multi) else read_spec(found.multi)
        found = replace(found, made=multi_record.provenance)
    return found


def _check_signals(found: IndexFolder) -> None:
    if found.dense is not None and not _is_faiss(found.dense):
        raise InputError(f"{found.dense} is no FAISS folder (files index and docid): {_what_it_is(found.dense)}")
    if found.lexical is not None and not _is_lucene(found.lexical):
        raise InputError(f"{found.lexical} is no Lucene index (files segments_*): {_what_it_is(found.lexical)}")
    if found.multi is not None and not is_multi(found.multi) and not (found.multi / SPEC).is_file():
        raise InputError(f"{found.multi} is no multi-vector index (file {MANIFEST}): {_what_it_is(found.multi)}")


def _is_faiss(folder: Path) -> bool:
    return (folder / "index").is_file() and (folder / "docid").is_file()


def _is_lucene(folder: Path) -> bool:
    return any(folder.glob("segments_*"))


def check_part(folder: str | Path, part: str) -> None:
    """Raise InputError where a command of Pyserini that wants ``part`` (dense, lexical) of an index got another folder.

    It says what the folder is and what to name.
    """
    path = Path(folder)
    if (path / FILE_NAME).is_file():
        parts = " and ".join(str(path / signal) for signal in SIGNALS if (path / signal).is_dir())
        use = f"name {path / part}" if (path / part).is_dir() else f"it has no {part} signal, only {parts}"
        raise InputError(
            f"{folder} is an index of `diffretriever index`, and this command takes one part of it: {use}."
        )
    if not path.is_dir():
        raise InputError(f"{folder}: {_what_it_is(path)}")
    if part == "dense" and not (path / "index").is_file():
        lucene = "; it is a Lucene index" if _is_lucene(path) else ""
        raise InputError(f"{folder} is no FAISS folder{lucene}: name the folder that holds index and docid.")
    if part == "lexical" and not _is_lucene(path):
        raise InputError(f"{folder} is no Lucene index: name the folder of the impact index, which holds segments_*.")


def _what_it_is(folder: Path, unknown: str = "it holds nothing of the kind; build the index again.") -> str:
    """What a person has named instead, and what to do; ``unknown`` where nobody can say."""
    if not folder.is_dir():
        return "it is a file; name the folder." if folder.exists() else "there is no such folder."
    if _is_faiss(folder):
        return "it is a FAISS folder of Pyserini's own commands; give it with --dense-index and name the --encoder."
    if _is_lucene(folder):
        return "it is a Lucene index of Pyserini's own commands; give it with --lexical-index and name the --encoder."
    if is_multi(folder):
        return "it is a multi-vector index; give it with --multi-index."
    if (folder / FILE_NAME).is_file():
        return "it is an index of `diffretriever index`; give it with --index."
    if (folder / SPEC).is_file():
        return "it is a store; make an index of it with `diffretriever index --store STORE --output INDEX`."
    lost = [name for name in ("index", "docid") if not (folder / name).is_file()]
    if len(lost) == 1:
        return f"the file {lost[0]} is missing; build the index again."
    return unknown
