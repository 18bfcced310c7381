"""What is installed: the wheel holds the daemon and every backend, the source distribution all that the documents name."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.process import temporary_folder

ROOT = Path(__file__).parent.parent
BACKENDS = sorted(path.name for path in (ROOT / "backends").glob("extauth_*"))
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
IMPORTED = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    assert found.__file__.startswith(sys.argv[1]), found.__file__
    assert not attribute or callable(getattr(found, attribute)), name
"""


@pytest.fixture(scope="module")
def built() -> Iterator[Path]:
    """Give a folder with a wheel and a source distribution."""
    with temporary_folder() as folder:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", str(folder)]
        subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
        yield folder


def sources(folder: str) -> set[str]:
    """Return the files of a package's folder, relative to the root."""
    found = (path for path in (ROOT / folder).rglob("*") if path.suffix == ".py" or path.name == "py.typed")
    return {str(path.relative_to(ROOT)) for path in found}


def test_the_wheel_holds_the_daemon_and_the_backends_alone(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == sources("extauth") | {path.removeprefix("backends/") for path in sources("backends")}


def test_what_the_wheel_holds_can_be_used(built: Path) -> None:
    wheel = next(built.glob("*.whl"))  # which Python also imports from as it is
    subprocess.run([sys.executable, "-c", IMPORTED, str(wheel), *BACKENDS, *SCRIPTS.values()], check=True, timeout=60, cwd="/")


def test_the_source_distribution_holds_what_is_installed_beside_it(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("systemd", "config", "contrib", "docs"):
        files = {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert files
        assert files <= held
