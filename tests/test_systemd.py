"""The systemd units: systemd itself has nothing to say against them, and they agree with each other."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import needs

pytestmark = needs.debian("systemd")

_UNITS = Path(__file__).parent.parent / "systemd"
_EXPOSURE_LIMIT = 20  # tenths


@pytest.fixture
def units(tmp: Path) -> Path:
    """Copy the units, the daemon replaced by a program that every machine has."""
    for unit in ("extauth.service", "extauth.socket"):
        text = (_UNITS / unit).read_text()
        (tmp / unit).write_text(text.replace("/usr/bin/extauth", "/bin/true"))
    return tmp


def _run(*command: str | Path) -> tuple[int, str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def _verify(units: Path) -> tuple[int, str]:
    # Status 0 alone says little: what systemd does not know it ignores, with a message.
    return _run("systemd-analyze", "verify", units / "extauth.service", units / "extauth.socket")


def _service() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read(_UNITS / "extauth.service")
    return parser["Service"]


def test_units_are_valid(units: Path) -> None:
    assert _verify(units) == (0, "")


def test_an_unknown_key_would_be_noticed(units: Path) -> None:
    with (units / "extauth.service").open("a") as service:
        service.write("[Service]\nProtectEverything=yes\n")
    assert "ProtectEverything" in _verify(units)[1]


def test_the_daemon_is_confined(units: Path) -> None:
    limit = f"--threshold={_EXPOSURE_LIMIT}"
    status, report = _run("systemd-analyze", "security", "--offline=yes", limit, "--no-pager", units / "extauth.service")
    assert status == 0, report


def test_the_drop_in_waits_for_reloads(units: Path) -> None:
    folder = units / "extauth.service.d"
    shutil.copytree(_UNITS / "extauth.service.d", folder)
    version = int(_run("systemd-analyze", "--version")[1].split()[1])
    messages = _verify(units)[1].splitlines()
    if version >= 253:  # the first to know notify-reload
        assert messages == []
    else:
        assert len(messages) == 1
        assert "notify-reload" in messages[0]


def test_sysusers_makes_the_user_that_the_service_runs_as(tmp: Path) -> None:
    (tmp / "etc").mkdir()
    status, message = _run("systemd-sysusers", f"--root={tmp}", _UNITS / "extauth.sysusers.conf")
    assert status == 0, message
    name, *_, home, shell = (tmp / "etc" / "passwd").read_text().strip().split(":")
    assert name == _service()["User"]
    assert home == f"/var/lib/{_service()['StateDirectory']}"
    assert shell.endswith("nologin")


def test_tmpfiles_and_service_make_the_same_folder() -> None:
    lines = (_UNITS / "extauth.tmpfiles.conf").read_text().splitlines()
    service = _service()
    mode, owner = service["RuntimeDirectoryMode"], service["User"]
    assert f"d /run/{service['RuntimeDirectory'].split()[0]} {mode} {owner} {owner} -" in lines
