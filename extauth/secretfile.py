"""Secrets of the configuration: each in a file of its own, which not everybody may read."""

import os
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
    try:
        text = read_key(path, key).decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise ConfigError([f"{key}: {path}: not UTF-8"]) from None
    if not text:
        raise ConfigError([f"{key}: {path}: is empty"])
    return Secret(text)


def read_key(path: str, key: str) -> bytes:
    """Return the bytes of a secret's file, all of them: also of a line break at its end. Arguments and errors as above."""
    place = f"{key}: {path}"
    try:
        with Path(path).open("rb") as file:
            others = os.fstat(file.fileno()).st_mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP)
            data = file.read()
    except OSError as error:
        raise ConfigError([f"{place}: {error.strerror}"]) from None
    if others:
        raise ConfigError([f"{place}: others can read it or the group can write it; chmod 640"])
    if not data:
        raise ConfigError([f"{place}: is empty"])
    return data
