"""Files of secrets: read, or refused with the reason."""

from pathlib import Path

import pytest

from extauth.errors import ConfigError
from extauth.secretfile import read_secret


def test_the_text_is_without_the_line_break(tmp: Path) -> None:
    path = tmp / "secret"
    path.write_text(" fake secret \n")
    path.chmod(0o640)
    assert read_secret(str(path), "key").reveal() == " fake secret "


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [(b"fake", 0o644, "chmod 640"), (b"fake", 0o620, "chmod 640"), (b"\n", 0o600, "is empty"), (b"\xff", 0o600, "not UTF-8")],
)
def test_what_is_no_secret_is_refused(tmp: Path, content: bytes, mode: int, problem: str) -> None:
    path = tmp / "secret"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"backend.x.key: {path}: .*{problem}"):
        read_secret(str(path), "backend.x.key")


def test_a_missing_file_is_told(tmp: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_secret(str(tmp / "none"), "key")
