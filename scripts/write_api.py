"""Writes docs/api.md from the docstrings of the public names: ``python scripts/write_api.py``; a test compares them."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

import diffretriever_pyserini
from diffretriever_pyserini.settings import Help

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
HEAD = """# Python API

<!-- Written by scripts/write_api.py from the docstrings: edit those. -->

`from diffretriever_pyserini import DiffRetriever, open_index, ...`: these names are public and stay. Some packages list
more in their `__all__` (last section); what is in no `__all__` may change without notice. Every example here runs as
a test.

"""
GROUPS = {
    "Models": ("DiffRetriever", "Representations", "RetrieverConfig", "resolve_config"),
    "From a corpus to an index": (
        *("Corpus", "EncodeOptions", "encode_corpus", "Store", "IndexOptions", "build_index"),
    ),
    "Searching, measuring, explaining": (
        *("open_index", "searching.SearchIndex", "SearchOptions", "read_topics", "read_qrels", "evaluate", "explain"),
    ),
    "Inside Pyserini": (
        *("DiffRetrieverQueryEncoder", "DiffRetrieverDocumentEncoder", "MaxSimSearcher", "register", "unregister"),
    ),
    "Exact scores on arrays": tuple(f"scoring.{name}" for name in diffretriever_pyserini.scoring.__all__),
    "Errors": ("DiffRetrieverError", "ConfigError", "InputError", "ModelNotFoundError", "NumericalError"),
}
NOT_OPTIONS = {  # fields without an option of their own, so without its help
    "IndexOptions.multi": "a ``MultiBuild``: how the K vectors are stored for MaxSim; None builds no such index",
    "SearchOptions.weights": "signal → weight in a fusion, where not 1; ``lexical`` overrides ``alpha``",
}
PACKAGES = (
    *("corpora", "encoding", "evaluation", "experiments", "explaining", "indexes", "integrations", "model"),
    *("searching", "serving"),
    "store",
    "training",
)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, names in GROUPS.items():
        parts.append(f"## {group}\n\n")
        parts += [entry(name) for name in names]
    parts.append("## Further names of the packages\n\n| package | names |\n|---|---|\n")
    for package in PACKAGES:
        listed = importlib.import_module(f"diffretriever_pyserini.{package}").__all__
        parts.append(f"| `diffretriever_pyserini.{package}` | {', '.join(f'`{name}`' for name in listed)} |\n")
    return "".join(parts)


def entry(name: str) -> str:
    """Heading, signature and docstring of one public name, and the first lines of a class's public members."""
    target: Any = diffretriever_pyserini
    for part in name.split("."):
        target = getattr(target, part)
    text = [f"### {name}\n\n"]
    described = fields(target)
    if not described and not (inspect.isclass(target) and issubclass(target, Exception)):
        text.append(f"```python\n{name}{signature(target)}\n```\n\n")
    text.append(f"{markdown(inspect.getdoc(target) or '')}\n\n")
    if described:
        text += ["| field | default | |\n|---|---|---|\n", *described, "\n"]
    if inspect.isclass(target) and (members := list(public_members(target))):
        text += ["| member | |\n|---|---|\n", *members, "\n"]
    return "".join(text)


def fields(target: Any) -> list[str]:
    """A row of a table for each setting of a class of settings: name, default, and the help of its option."""
    if not dataclasses.is_dataclass(target) or not any("Help(" in str(one.type) for one in dataclasses.fields(target)):
        return []
    hints = get_type_hints(target, include_extras=True)
    rows = []
    for field in dataclasses.fields(target):
        hint = next((one for one in getattr(hints[field.name], "__metadata__", ()) if isinstance(one, Help)), Help(""))
        default = "" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        off = "False: " if field.default is True and hint.text.startswith("do not") else ""  # what its option does
        text = hint.text or NOT_OPTIONS.get(f"{target.__name__}.{field.name}", "")
        rows.append(f"| `{field.name}` | {hint.default or default} | {inline(off + text)} |\n")
    return rows


def signature(target: Any) -> str:
    """Parameters and defaults, a line each where there are several, without annotations that only repeat the text."""
    parameters = inspect.signature(target).parameters.values()
    shown = [
        str(one.replace(annotation=inspect.Parameter.empty))
        for one in parameters
        if not one.name.startswith(("self", "_"))
    ]
    return f"({', '.join(shown)})" if len(", ".join(shown)) < 90 else "(\n    " + ",\n    ".join(shown) + ",\n)"


def public_members(target: type) -> list[str]:
    """A row of a table for each method and property that ``target`` itself defines, with its first sentence."""
    rows = []
    for name, member in vars(target).items():
        member = getattr(member, "__func__", member)
        text = inspect.getdoc(member)
        if name.startswith("_") or not text or not (callable(member) or hasattr(member, "__get__")):
            continue
        call = "()" if callable(member) else ""
        summary = " ".join(text.split("\n\n")[0].split())
        rows.append(f"| `{name}{call}` | {inline(summary)} |\n")
    return rows


def markdown(docstring: str) -> str:
    """A NumPy docstring as Markdown: sections bold, parameters as a list, examples fenced."""
    sections = re.split(r"^(\w[\w ]*)\n-{3,}\n", docstring, flags=re.M)
    parts = [inline(sections[0].strip())]
    for title, body in zip(sections[1::2], sections[2::2], strict=True):
        body = body.strip("\n")
        if title == "Examples":
            parts.append(f"```python\n{body.strip()}\n```")
        elif title in ("Parameters", "Attributes", "Raises"):
            parts.append(f"**{title}**\n\n{bullets(body)}")
        else:
            parts.append(f"**{title}**\n\n{inline(body.strip())}")
    return "\n\n".join(parts)


def bullets(body: str) -> str:
    """``name : text`` or ``name`` and an indented text, one bullet each."""
    entries: list[list[str]] = []
    for line in body.split("\n"):
        if line and not line.startswith(" "):
            name, _, rest = line.partition(" : ")
            entries.append([f"- `{name}`" + (f": {rest}" if rest else ":")])
        elif line.strip():
            entries[-1].append(line.strip())
    return inline("\n".join(" ".join(one).removesuffix(":") for one in entries))


def inline(text: str) -> str:
    """reStructuredText's roles and double backticks as Markdown's code."""
    text = re.sub(r":\w+:`~?\.*([\w.]+)`", lambda role: f"`{role[1].rpartition('.')[2]}`", text)
    return text.replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
