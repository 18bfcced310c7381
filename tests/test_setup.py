"""What `make test` sets up: lists that are complete and files that fit any machine."""

import json
import re
from pathlib import Path

import pytest

from tests import needs
from tools import prepare

_TESTS = Path(__file__).parent


def test_each_group_of_packages_is_needed_by_a_test() -> None:
    sources = "".join(path.read_text() for path in _TESTS.rglob("test_*.py"))
    used = set(re.findall(r'needs\.debian\("([^"]+)"\)', sources))
    assert used == set(prepare.missing_packages())


def test_an_unknown_group_is_an_error() -> None:
    group = "nobody"
    with pytest.raises(KeyError, match=group):
        needs.debian(group)


def test_a_missing_program_is_named() -> None:
    assert needs.program("no-such-program").args == ("no-such-program not found",)
    assert needs.program("sh").args == (None,)


def test_the_lock_file_names_no_host() -> None:
    lock = json.loads((_TESTS / "node" / "package-lock.json").read_text())
    packages = [package for path, package in lock["packages"].items() if path]
    assert packages
    assert all("integrity" in package for package in packages)
    assert "://" not in json.dumps(lock)


@needs.node()
def test_node_finds_its_packages() -> None:
    node = prepare.find_node()
    assert node is not None
    program = 'import "strophe.js"; import "ws"; import "@xmldom/xmldom"; console.log("found")'
    assert prepare.output([str(node), "--input-type=module", "-e", program], prepare.NODE_FOLDER) == "found\n"
