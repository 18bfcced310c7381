"""Marks for tests that need something outside Python.

What is missing skips the test, with the reason; where CI=true it fails the test, since there nothing may be
left out. `tests/conftest.py` acts on the marks.
"""

import os
import shutil
from functools import cache

import pytest

from tools import prepare

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def debian(group: str) -> pytest.MarkDecorator:
    """Need a group of tests/debian-packages.txt; KeyError if there is no such group."""
    missing = _missing_packages()[group]
    return _needs(f"Debian packages not installed: {' '.join(missing)}" if missing else None)


def program(name: str) -> pytest.MarkDecorator:
    """Need an executable of this name in one of the usual folders."""
    found = shutil.which(name, path=_SEARCH)
    return _needs(None if found else f"{name} not found")


def root() -> pytest.MarkDecorator:
    """Need to run as root: some servers have fixed ports below 1024. No package gives that, so it is skipped anywhere."""
    return pytest.mark.skipif(os.geteuid() != 0, reason="not run as root")


def node() -> pytest.MarkDecorator:
    """Need Node.js and the packages of tests/node."""
    ready = prepare.find_node() is not None and prepare.node_packages_ready()
    return _needs(None if ready else "Node.js or its packages missing; make test installs them")


@cache
def _missing_packages() -> dict[str, list[str]]:
    return prepare.missing_packages()


def _needs(problem: str | None) -> pytest.MarkDecorator:
    return pytest.mark.needs(problem)
