"""TLS to servers that backends ask."""

import ssl

from extauth.errors import ConfigError


def client_context(place: str, ca_file: str | None, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """Return what verifies a server and, if there is a client certificate, shows it.

    Args:
        place: of the files in the configuration, for what is wrong: "backend.NAME".
        ca_file: whose certificates are trusted, PEM; None: the system's.
        certificate: the client's, PEM.
        key: that of the certificate, PEM; None: in the same file.

    Raises:
        ConfigError: a file can't be used.
    """
    problems: list[str] = []
    context = ssl.create_default_context()
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # SSLError, too
        problems.append(f"{place}.ca_file: {ca_file}: {error.strerror or error}")
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key, _no_passphrase)
    except (OSError, ValueError) as error:
        shown = f"client_certificate: {certificate}" if key is None else f"client_certificate, client_key: {certificate}, {key}"
        problems.append(f"{place}.{shown}: {getattr(error, 'strerror', None) or error}")
    if problems:
        raise ConfigError(problems)
    return context


def _no_passphrase() -> str:
    raise ValueError("a key with a passphrase can't be used")
