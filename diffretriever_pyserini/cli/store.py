"""``diffretriever store``: the contents of a store, the skipped rows, and a check of its files."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_HELP = "Show the contents of a store, list skipped rows, or verify its checksums."
_EXAMPLES = """\
examples:
  diffretriever store STORE
  diffretriever store STORE --verify
  diffretriever store STORE --skipped
"""


def add_to(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add this command."""
    parser = commands.add_parser(
        "store", help=_HELP, description=_HELP, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="folder that `diffretriever encode` wrote")
    parser.add_argument("--verify", action="store_true", help="read all parts and verify their checksums")
    parser.add_argument("--skipped", action="store_true", help="list the skipped rows, one per line")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from tqdm.auto import tqdm

    from ..store.store import Store
    from .format import counted, size

    store = Store(arguments.store)
    if arguments.verify:
        for part in tqdm(store.parts, unit=" parts", desc="Verifying", disable=None):
            part.verify()
    skipped = list(store.skipped())
    if arguments.skipped:
        for _, reason in skipped:
            print(reason)
        return
    written = sum(part.path.stat().st_size for part in store.parts)
    spec = store.spec
    facts = {
        "passages": len(store),
        "parts": len(store.parts),
        "skipped": len(skipped),
        "bytes": written,
        "encoder": spec.encoder,
        "fingerprint": spec.provenance.fingerprint,
        "vectors": f"{spec.stored_k} x {spec.dimension} {spec.dtype}",
        "verified": arguments.verify,
    }
    if arguments.json:
        print(json.dumps(facts))
        return
    counts = f"{counted(len(store), 'passage')} in {counted(len(store.parts), 'part')}, {size(written)}"
    print(f"{arguments.store}: {counts}")
    print(f"  encoder {spec.encoder}, fingerprint {spec.provenance.fingerprint}, {facts['vectors']} per passage")
    print(f"  rows skipped: {len(skipped)}" + (" (--skipped lists them)" if skipped else ""))
    if arguments.verify:
        print("  all checksums are correct")
