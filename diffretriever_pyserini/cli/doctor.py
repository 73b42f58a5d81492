"""`diffretriever doctor`: what works here, what does not, and what to do about it."""

import argparse
from typing import Any

_HELP = "check Python, Java, FAISS, devices and the connection to Pyserini"


def add_to(commands: Any) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor", help=_HELP, description=f"{_HELP}; exit code 1 when something does not work"
    )
    parser.set_defaults(function=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from ..plugin.doctor import doctor_report

    checks = doctor_report()
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:<7}  {check.name:<{width}}  {check.text}")
        if check.remedy:
            print(f"{'':<7}  {'':<{width}}  -> {check.remedy}")
    return int(any(check.status == "error" for check in checks))
