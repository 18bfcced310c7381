"""TLS to servers that backends ask: each file that can't be used is told in its place."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from extauth.errors import ConfigError
from extauth.tls import client_context
from tests.certificates import Certificates


def problems(*files: Path | None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        client_context("backend.people", *(None if file is None else str(file) for file in files))
    return caught.value.problems


def test_what_can_be_used_is_used(certificates: Certificates) -> None:
    client_context("backend.people", None)
    client_context("backend.people", str(certificates.ca), str(certificates.server))
    client_context("backend.people", str(certificates.ca), str(certificates.server_certificate), str(certificates.server_key))


def test_files_that_are_not_there_are_all_told(tmp: Path) -> None:
    gone = tmp / "gone.pem"
    assert problems(gone, gone) == (
        f"backend.people.ca_file: {gone}: No such file or directory",
        f"backend.people.client_certificate: {gone}: No such file or directory",
    )


def test_files_of_another_kind_are_told(tmp: Path, certificates: Certificates) -> None:
    junk = tmp / "junk.pem"
    junk.write_text("junk")
    assert problems(junk)[0].startswith(f"backend.people.ca_file: {junk}: ")
    (told,) = problems(certificates.ca, certificates.server_certificate, junk)
    assert told.startswith(f"backend.people.client_certificate, client_key: {certificates.server_certificate}, {junk}: ")


def test_a_key_with_a_passphrase_is_told(tmp: Path, certificates: Certificates) -> None:
    key = serialization.load_pem_private_key(certificates.server_key.read_bytes(), None)
    locked = tmp / "locked.pem"
    encryption = serialization.BestAvailableEncryption(b"fake passphrase")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    (told,) = problems(None, certificates.server_certificate, locked)
    assert told.endswith(": a key with a passphrase can't be used")
