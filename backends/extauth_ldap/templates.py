"""Filters and names with places for the user: what is put in is always escaped, by the rules of where it is put."""

import re

from extauth.templates import Template

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_PRINCIPAL = re.compile(r"[\w.\-+=~!#$%^]+", re.ASCII)


def filter_value(text: str) -> str:
    """Return `text` as an assertion value of a search filter (RFC 4515 section 3)."""
    return "".join(chr(octet) if octet in _PLAIN else f"\\{octet:02x}" for octet in text.encode())


def dn_value(text: str) -> str:
    """Return `text` as an attribute value of a distinguished name (RFC 4514 section 2.4)."""
    return filter_value(text)  # there too, any octet may be a backslash and two hexadecimal digits


def principal_value(text: str) -> str:
    r"""Return `text` as a part of user@domain or DOMAIN\user, in which nothing can be escaped.

    Raises:
        ValueError: it holds what might mean something there.
    """
    if not _PRINCIPAL.fullmatch(text):
        raise ValueError("can't be part of a principal name")
    return text


def bind_name_template(text: str) -> Template:
    r"""Return the template of whom to bind as: a distinguished name, or a principal name (user@domain, DOMAIN\user)."""
    return Template(text, dn_value if "=" in text else principal_value)
