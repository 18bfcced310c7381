"""Preparation of passwords: SASLprep (RFC 4013), else OpaqueString (RFC 8265 section 4.2)."""

import stringprep
import unicodedata

from precis_i18n import get_profile

LONGEST = 1024  # code points that anybody's password may have

_opaque_string = get_profile("OpaqueString")
_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def is_prepared(text: str) -> bool:
    """Tell whether a password is plainly what either profile would make of it: printable ASCII, as nearly always."""
    return text.isascii() and text.isprintable()


def saslprep(text: str) -> str | None:
    """Return `text` as SASLprep makes it for storing, "" if nothing is left of it; None if it can't be prepared."""
    if is_prepared(text):
        return text
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    characters = set(prepared)  # each once: the tables take 10 us a character
    if any(prohibited(c) for c in characters for prohibited in _PROHIBITED):
        return None
    # RFC 3454 section 6: right-to-left text begins and ends with such a character and holds no left-to-right one.
    if any(map(stringprep.in_table_d1, characters)) and not (
        stringprep.in_table_d1(prepared[0])
        and stringprep.in_table_d1(prepared[-1])
        and not any(map(stringprep.in_table_d2, characters))
    ):
        return None
    return prepared


def opaque_string(text: str) -> str | None:
    """Return `text` as the OpaqueString profile makes it; None if it can't be prepared."""
    try:
        return str(_opaque_string.enforce(text)) or None
    except ValueError:  # precis-i18n: UnicodeEncodeError
        return None


def is_blank(text: str) -> bool:
    """Tell whether this can be nobody's password: nothing or white space, also once it is prepared; or it holds NUL."""
    if text.isascii():
        return "\0" in text or not text.strip()
    return "\0" in text or all(c.isspace() or stringprep.in_table_b1(c) for c in text)


def for_storing(text: str) -> str | None:
    """Return the form of a password that keys are made of; None if neither profile allows it."""
    prepared = saslprep(text)
    return opaque_string(text) if prepared is None else prepared or None


def for_checking(text: str) -> tuple[str, ...]:
    """Return the forms to try, in order: as it arrived, its SASLprep, its OpaqueString; no form twice, none empty.

    Prosody prepares what it sends and ejabberd does not, and some stored keys were made of unprepared text. What is longer than
    a password may be is not prepared: that takes 10 us a character.
    """
    if is_prepared(text) or len(text) > LONGEST:
        return (text,) if text else ()
    return tuple(dict.fromkeys(form for form in (text, saslprep(text), opaque_string(text)) if form))
