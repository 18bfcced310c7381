"""Secrets of the configuration: each in a file of its own, which not everybody may read."""

import stat
from pathlib import Path

from extauth.errors import ConfigError
from extauth.model import Secret


def read_secret(path: str, key: str) -> Secret:
    """Return the text of a secret's file, without a line break at its end.

    Args:
        path: of the file.
        key: names it in the configuration, for what is wrong.

    Raises:
        ConfigError: the file can't be read, is empty, or others can read it.
    """
    place = f"{key}: {path}"
    try:
        with Path(path).open(encoding="utf-8") as file:
            others = Path(path).stat().st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
            text = file.read().removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{place}: {error.strerror if isinstance(error, OSError) else 'not UTF-8'}"]) from None
    if others:
        raise ConfigError([f"{place}: others can read it or the group can write it; chmod 640"])
    if not text:
        raise ConfigError([f"{place}: is empty"])
    return Secret(text)
