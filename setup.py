"""Packaging: what pyproject.toml cannot say (the two start-up files, and top-level folders that are package data)."""

import base64
import hashlib
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

HOOK = "_diffretriever_pyserini_startup"
# Both files lie at the root of the wheel, so at the root of site-packages, where Python's `site` looks for them.
# Python 3.15+ reads the .start file and skips the import lines of the .pth of the same stem; older ones read the .pth.
STARTUP_FILES = {
    "diffretriever-pyserini.pth": (
        # Where the module is gone (an editable checkout moved away), Python must start as if we were not there.
        f"import sys; exec('try:\\n import {HOOK} as h\\nexcept ImportError:\\n h = None\\nif h: h.install()')\n"
    ),
    "diffretriever-pyserini.start": f"{HOOK}:install\n",
}


class BuildWithStartupFiles(build_py):
    """Lay the start-up files beside the package, as data at the root of the wheel."""

    def run(self):
        super().run()
        if not self.editable_mode:
            Path(self.build_lib).mkdir(parents=True, exist_ok=True)
            for name, text in STARTUP_FILES.items():
                Path(self.build_lib, name).write_text(text, encoding="utf-8")

    def get_outputs(self, include_bytecode=1):
        ours = [] if self.editable_mode else [str(Path(self.build_lib, name)) for name in STARTUP_FILES]
        return [*super().get_outputs(include_bytecode), *ours]


class EditableWithStartupFiles(editable_wheel):
    """Add the start-up files to the finished editable wheel; they are listed in RECORD, so pip removes them again."""

    def run(self):
        before = set(Path(self.dist_dir).glob("*.whl")) if self.dist_dir else set()
        super().run()
        for wheel in set(Path(self.dist_dir).glob("*.whl")) - before:
            add_to_wheel(wheel, STARTUP_FILES)


def add_to_wheel(wheel, files):
    """Rewrite `wheel` with `files` (name -> text) at its root and in its RECORD."""
    handle, rewritten = tempfile.mkstemp(suffix=".whl", dir=wheel.parent)
    os.close(handle)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(rewritten, "w", zipfile.ZIP_DEFLATED) as new:
        lines = []
        for name, text in files.items():
            data = text.encode("utf-8")
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            new.writestr(name, data)
            lines.append(f"{name},sha256={digest},{len(data)}\n")
        for item in old.infolist():
            data = old.read(item)
            if item.filename.endswith(".dist-info/RECORD"):
                data = "".join(lines).encode("utf-8") + data
            new.writestr(item, data)
    shutil.move(rewritten, wheel)


setup(
    packages=[
        "diffretriever_pyserini",
        *find_packages(include=["diffretriever_pyserini.*"]),
        "diffretriever_pyserini.docs",
        "diffretriever_pyserini.examples",
        "diffretriever_pyserini.prebuilt_configs",
    ],
    # The hook's module is a top-level one so that a Python start does not run the package's __init__.
    py_modules=[HOOK],
    package_dir={
        "diffretriever_pyserini.docs": "docs",
        "diffretriever_pyserini.examples": "examples",
        "diffretriever_pyserini.prebuilt_configs": "prebuilt_configs",
    },
    package_data={
        "diffretriever_pyserini": ["model/data/*", "explaining/page.*"],
        "diffretriever_pyserini.docs": ["**/*"],
        "diffretriever_pyserini.examples": ["**/*"],
        "diffretriever_pyserini.prebuilt_configs": ["models/*.yaml", "runs/*.yaml", "checkpoints/**/*"],
    },
    cmdclass={"build_py": BuildWithStartupFiles, "editable_wheel": EditableWithStartupFiles},
)
