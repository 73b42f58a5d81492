"""`diffretriever doctor`: what works on this machine, what does not, and what to do about it.

The module imports only the standard library; each check imports what it needs, so that it can name a missing package.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import TYPE_CHECKING, Any

from ..errors import DiffRetrieverError
from ..runtime.waiting import waiting_for
from .format import Check

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_HELP = "check Python, Java, FAISS, devices and the connection to Pyserini"
DISTRIBUTION = "diffretriever-pyserini"
_PYSERINI_TIMEOUT_SECONDS = 300
# A new Python process imports Pyserini as its own commands do, and a JVM that crashes ends only that process.
_PROBE = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
from diffretriever_pyserini.plugin import registry
points = [(point.name, *registry.state(point)) for point in registry.TOUCH_POINTS]
print("\\n" + json.dumps({"route": registry.route(), "points": points}))
"""


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor", help=_HELP, description=f"{_HELP}; exit code 1 when something does not work"
    )
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    checks = doctor_report()
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(check.lines(width))
    return int(any(check.status == "error" for check in checks))


def doctor_report() -> list[Check]:
    """Run all checks, which change nothing. This takes about ten seconds, since Pyserini and its JVM are started."""
    return [*_python(), *_packages(), *_java(), *_faiss(), *_devices(), *_model(), *_pyserini()]


def _python() -> Iterator[Check]:
    yield Check("Python", "ok", f"{platform.python_version()} at {sys.executable}")


def _packages() -> Iterator[Check]:
    """Compare our own requirements with the installed packages."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    except metadata.PackageNotFoundError:
        text = "diffretriever-pyserini itself is not installed, only its checkout is on the path"
        yield Check("packages", "warning", text, "run `pip install -e .` in the checkout, so that Pyserini finds it")
        return
    installed = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name.startswith("faiss-"):
            continue  # one of several packages, see _faiss
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Check("packages", "error", f"{requirement.name} is missing", _install(requirement))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            installed.append(f"{requirement.name} {version}")
        else:
            yield _untested(requirement, version)
    yield Check("packages", "ok", ", ".join(installed))


def _untested(requirement: Requirement, version: str) -> Check:
    text = f"{requirement.name} {version} is not a version that this package was tested with"
    return Check("packages", "warning", text, _install(requirement))


def _install(requirement: Requirement) -> str:
    return f"run `pip install '{requirement.name}{requirement.specifier}'`"


def _java() -> Iterator[Check]:
    from ..runtime.java import choose_java

    try:
        choice = choose_java()
    except DiffRetrieverError as error:
        yield Check("Java", "error", "no suitable runtime", str(error))
        return
    for note in choice.notes:
        yield Check("Java", "warning", note, "set JAVA_HOME to the runtime you want, or unset it")
    yield Check("Java", "ok", str(choice.runtime))


def _faiss() -> Iterator[Check]:
    """Import it, whichever package it is from: on Linux x86-64 pip installs faiss-gpu, but faiss-cpu is as good."""
    from packaging.requirements import Requirement

    from ..runtime.faiss import faiss_installation

    installation = faiss_installation()
    if installation.problem:
        detail = f" ({installation})" if installation.distributions else ""
        text = f"cannot be imported{detail}: {installation.problem}"
        yield Check("FAISS", "error", text, installation.remedy)
    elif installation.conflict:
        yield Check("FAISS", "warning", f"{installation}: they overwrite each other's files", installation.remedy)
    else:
        yield Check("FAISS", "ok", str(installation))
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or []):
            version = installation.distributions.get(requirement.name)
            if version is not None and not requirement.specifier.contains(version, prereleases=True):
                yield _untested(requirement, version)


def _devices() -> Iterator[Check]:
    try:
        import torch
    except ImportError as error:
        yield Check("devices", "error", f"PyTorch cannot be imported: {error}", "run `pip install torch`")
        return
    devices = [f"cpu ({torch.get_num_threads()} threads)"]
    for index in range(torch.cuda.device_count()):
        devices.append(f"cuda:{index} ({torch.cuda.get_device_name(index)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    yield Check("devices", "ok", ", ".join(devices))


def _model() -> Iterator[Check]:
    """The default model: its config, adapter and base folder."""
    from ..model.hub import local_folder
    from ..model.prebuilt import DEFAULT_NAME
    from ..model.resolve import resolve_config

    try:
        config = resolve_config(DEFAULT_NAME)
        local_folder(config.backbone)
    except DiffRetrieverError as error:
        yield Check("model", "error", f"{DEFAULT_NAME} cannot be used", str(error))
        return
    adapter = f", adapter {config.adapter}" if config.adapter else ""
    yield Check("model", "ok", f"{DEFAULT_NAME}: K = {config.k_query}/{config.k_passage}, {config.backbone}{adapter}")


def _pyserini() -> Iterator[Check]:
    """Import Pyserini in a new Python process and list the patches that are active there."""
    import _diffretriever_pyserini_startup as startup

    from ..plugin.registry import TOUCH_POINTS

    modules = json.dumps(list(dict.fromkeys(point.module for point in TOUCH_POINTS)))
    waiting_for("starting Pyserini in a new process")
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, modules]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PYSERINI_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        yield Check(
            "Pyserini",
            "error",
            f"did not start within {_PYSERINI_TIMEOUT_SECONDS} seconds",
            "run `python -c 'import pyserini.search'` to see where it stops",
        )
        return
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        yield Check(
            "Pyserini", "error", f"cannot be imported: {last}", "fix the error in the message, then run this again"
        )
        return
    probe = json.loads(done.stdout.strip().splitlines()[-1])
    if probe["route"]:
        yield Check("plugin", "ok", f"attached to Pyserini by the {probe['route']}")
    elif startup.opted_out():
        text = f"switched off by {startup.OPT_OUT}={os.environ[startup.OPT_OUT]}"
        yield Check("plugin", "warning", text, f"unset {startup.OPT_OUT} to use --encoder diffretriever")
    else:
        remedy = "reinstall with pip, or call diffretriever_pyserini.register() in your script"
        yield Check("plugin", "warning", "the start-up hook does not run in this environment", remedy)
    yield from _touch_points(probe["points"], bool(probe["route"]))


def _touch_points(states: list[tuple[str, str, str]], attached: bool) -> Iterator[Check]:
    active = sum(state == "active" for _, state, _ in states)
    if attached:
        yield Check("plugin", "ok", f"{active} of {len(states)} touch points active")
    for name, state, detail in states:
        if attached and state != "active":
            remedy = "this Pyserini differs from 2.3 and 2.4, which are known to work; the others are unaffected"
            yield Check("plugin", "warning", f"{name}: {state} ({detail})", remedy)
