"""Stored passwords: values made by the real tools, what is refused, and what we write ourselves."""

import re
import shutil
import subprocess
import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.passwords.formats import crypt
from extauth.passwords.scram import Hash
from extauth.passwords.stored import WEAK, WRITABLE, Stored, UnsupportedHash, make, needs_update, parse
from tests import needs

PASSWORD = "fake pass word"
WRONG = "fake pass wor"

# Each made of PASSWORD by the program that is named.
VALUES = {
    # PHP 8.2, password_hash()
    "php bcrypt": ("bcrypt", "$2y$05$H9G7MFBJFMIQUi5iIMVWXuZEf/Y2YlEnywhKOX.wu0c.G6rZhVFL2"),
    "php argon2id": (
        "argon2id",
        "$argon2id$v=19$m=1024,t=2,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    ),
    "php argon2i": (
        "argon2i",
        "$argon2i$v=19$m=1024,t=2,p=1$TGJ0MFM1dlRsSHJUVWhPYw$ZgfLCwBNmk+9X1jtQXjth4xO/5MF5+BDy3DcDjjUS3k",
    ),
    # The same in the forms of Nextcloud (lib/private/Security/Hasher.php)
    "nextcloud 1": ("bcrypt", "1|$2y$05$H9G7MFBJFMIQUi5iIMVWXuZEf/Y2YlEnywhKOX.wu0c.G6rZhVFL2"),
    "nextcloud 2": (
        "argon2i",
        "2|$argon2i$v=19$m=1024,t=2,p=1$TGJ0MFM1dlRsSHJUVWhPYw$ZgfLCwBNmk+9X1jtQXjth4xO/5MF5+BDy3DcDjjUS3k",
    ),
    "nextcloud 3": (
        "argon2id",
        "3|$argon2id$v=19$m=1024,t=2,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    ),
    # PHP 8.2, as wp_hash_password() of WordPress 6.8 calls it
    "wordpress 6.8": ("wordpress-bcrypt", "$wp$2y$05$FGGaUysaRykeb2qpogfOk.bR3TwIeFZNFuK3J73VmRjjkeizN94/W"),
    # Django 5.2, make_password()
    "django pbkdf2": (
        "pbkdf2-sha256",
        "pbkdf2_sha256$1000000$cHItpji6x1PBm0pnyLIV4t$GL9LBGJ0NHwQPuiQ3WpMk3kfHabtCz2LqwlZb5CDuHI=",
    ),
    "django pbkdf2 sha1": ("pbkdf2-sha1", "pbkdf2_sha1$1000000$DK47n5t3YXN6PKJREnpRtL$g3QIhoVXT093c5Iz634uIB/wjPc="),
    "django argon2": (
        "argon2id",
        "argon2$argon2id$v=19$m=102400,t=2,p=8$aEUyQ2ZFdGptdUpoWUkyTVExZERCRA$U6JRzaY5qENn4zHqCkgCtL16H2HFssvqZF3Tnw+8rrs",
    ),
    "django bcrypt_sha256": ("bcrypt-sha256", "bcrypt_sha256$$2b$12$xH5RYk.2w9CQTJSfEIMp7.WAZmmK4McpKwbgtvF1d337ISiADeeHy"),
    "django bcrypt": ("bcrypt", "bcrypt$$2b$12$Bv77rjw1t1S9.8ix/zDj1e4wL9RFt0xA8l0..3BFLPQ3.qy1QkYVG"),
    "django scrypt": (
        "scrypt",
        (
            "scrypt$16384$xMknFGVGYHtjX2thS4OotO$8$5$frBWon35Cax4ohhOnlOpxTacc2asSa9lwJv+wqnmzb4UeSGUzGMtiPvISHu7GYPfN8HOIfPC"
            "vmOa2TC7kqs9eA=="
        ),
    ),
    "django md5": ("salted-md5", "md5$Uh0eSGvpSD8z13HfqKElmL$4fe15d39c14381fbb96ff0ec76cd59ff"),
    # Werkzeug 3.1, generate_password_hash()
    "werkzeug scrypt": (
        "scrypt",
        (
            "scrypt:32768:8:1$lUXlbWyyRzCzWqFN$6877f0efeeb2dbdacd2efa284fee9b7f4356d3819d790ef46d4e364d49f64c366ef2046522707c66"
            "006770a809126cfe5270a4159bcfaaf3207cee2c32d89a85"
        ),
    ),
    "werkzeug pbkdf2": (
        "pbkdf2-sha256",
        "pbkdf2:sha256:1000$jGvGBYhDpHGgAmfz$42c0be6be2ce742353ad30f862d9d2575e69afdb4f1015aab3afe1f0d89f52ef",
    ),
    # passlib 1.7
    "phpass": ("phpass", "$P$7twa54IoqSOK8VcGWf0EHqeYUQpIzY1"),
    "phpbb": ("phpass", "$H$7twa54IoqSOK8VcGWf0EHqeYUQpIzY1"),
    "passlib pbkdf2": (
        "pbkdf2-sha256",
        "$pbkdf2-sha256$1000$WGvtfY9xjjGGEIIQAsBYiw$sxAL0qTAz69yJzpZck06EzKsxaVJOT0BRoeIsvZMb4A",
    ),
    "ldap pbkdf2 sha256": (
        "pbkdf2-sha256",
        "{PBKDF2-SHA256}1000$5/wfg5ASwnhvbU1pjRFCSA$mC07WW0Bq5HbEdYZ3Z9YDT28iOPnxA3KmNLk.zlxmys",
    ),
    "ldap pbkdf2 sha512": (
        "pbkdf2-sha512",
        (
            "{PBKDF2-SHA512}1000$XmvNGUOo1bo3hpASIgRgjA$KAgZYduiWLC5upbcjgSk4kvW4dyGNfrKemQSH4CxJPGUfWE.KGs5VMWLVJWnmBwnrGEQWN"
            "hm2rhF0iXd4aIOJA"
        ),
    ),
    "ldap pbkdf2 sha1": ("pbkdf2-sha1", "{PBKDF2}1000$uXfuPSfEOOd8T.kdo9Ta2w$qppQwdQ9L9I.wjW.3FJJd/UMJiQ"),
    # doveadm pw of Dovecot 2.3.19; those that need nothing else are made anew below
    "dovecot scram": (
        "scram-sha-256",
        (
            "{SCRAM-SHA-256}4096,WO46cPhufsew3tppp1R0uQ==,s2NB85ctbws9+PBEANouFhlfZDHn20diaO/csXCyuuo=,"
            "uILHZ+xXAXPfsZ3kQisrc7bzAUE36ML8wIbEGGE4yfI="
        ),
    ),
    "dovecot pbkdf2": ("pbkdf2-sha1", "{PBKDF2}$1$v.vfSzSruJ7f/60V$5000$212adeb31bfa06ee4f9f323d7fbb27d489f6e33c"),
}


# What a test may choose, so that it does not take long.
CHEAP = {
    **dict.fromkeys(("argon2", "nextcloud"), (1024, 1, 1)),
    **dict.fromkeys(("bcrypt", "wordpress"), (4,)),
    "pbkdf2": (1000,),
    "scrypt": (1024, 8, 1),
    "scram": (4096,),
}


def make_cheaply(form: str, password: str) -> str:
    return make(form, password, next((cost for word, cost in CHEAP.items() if word in form), None))


def reads(text: str, scheme: str, password: str = PASSWORD) -> Stored:
    """Read a value with every weak scheme allowed; right and wrong passwords are told apart."""
    stored = parse(text, WEAK)
    assert stored.scheme == scheme
    assert stored.verify((password,))
    assert not stored.verify((WRONG,))
    assert stored.weak is (scheme in WEAK)
    return stored


def run(*command: str, text: str = "") -> str:
    """Return the last word that a tool prints."""
    path = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert path
    done = subprocess.run([path, *command[1:]], input=text, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


@pytest.mark.parametrize(("scheme", "text"), VALUES.values(), ids=VALUES)
def test_values_of_the_field(scheme: str, text: str) -> None:
    reads(text, scheme)


MKPASSWD = {
    "yescrypt": "yescrypt", "gost-yescrypt": "gost-yescrypt", "scrypt": "scrypt", "bcrypt": "bcrypt", "bcrypt-a": "bcrypt",
    "sha512crypt": "sha512-crypt", "sha256crypt": "sha256-crypt", "md5crypt": "md5-crypt",
}  # fmt: skip


@needs.debian("passwords")
@pytest.mark.parametrize("prefix", ["", "{CRYPT}"])
@pytest.mark.parametrize(("method", "scheme"), MKPASSWD.items())
def test_mkpasswd(method: str, scheme: str, prefix: str) -> None:
    reads(prefix + run("mkpasswd", "-s", "-m", method, text=PASSWORD), scheme)


@needs.debian("passwords")
def test_mkpasswd_rounds() -> None:
    assert reads(run("mkpasswd", "-s", "-m", "sha512crypt", "-R", "7000", text=PASSWORD), "sha512-crypt").cost == (7000,)


HTPASSWD = {
    "-m": "md5-crypt", "-B": "bcrypt", "-s": "sha1", "-p": "plain", "-2": "sha256-crypt", "-5": "sha512-crypt",
}  # fmt: skip


@needs.debian("passwords")
@pytest.mark.parametrize(("option", "scheme"), HTPASSWD.items())
def test_htpasswd(option: str, scheme: str) -> None:
    reads(run("htpasswd", "-ni", option, "user", text=PASSWORD).removeprefix("user:"), scheme)


@needs.debian("passwords")
def test_htpasswd_des_hears_eight_characters() -> None:
    stored = parse(run("htpasswd", "-ni", "-d", "user", text="fakepass").removeprefix("user:"), frozenset({"des-crypt"}))
    assert stored.verify(("fakepass",))
    assert not stored.verify(("fakepasz",))


DOVEADM = {
    "BLF-CRYPT": "bcrypt", "CRYPT": "bcrypt", "ARGON2I": "argon2i", "ARGON2ID": "argon2id", "SHA512-CRYPT": "sha512-crypt",
    "SHA512-CRYPT.HEX": "sha512-crypt", "SHA256-CRYPT.B64": "sha256-crypt", "MD5-CRYPT": "md5-crypt", "MD5": "md5-crypt",
    "PBKDF2": "pbkdf2-sha1", "SCRAM-SHA-1": "scram-sha-1", "SCRAM-SHA-256": "scram-sha-256", "SSHA512": "salted-sha512",
    "SSHA256": "salted-sha256", "SSHA256.HEX": "salted-sha256", "ssha512.b64": "salted-sha512", "SSHA": "salted-sha1",
    "SHA": "sha1", "SHA1": "sha1", "SHA256": "sha256", "SHA256.HEX": "sha256", "SHA512": "sha512", "SMD5": "salted-md5",
    "PLAIN-MD5": "md5", "LDAP-MD5": "md5", "PLAIN": "plain", "CLEAR": "plain", "CLEARTEXT": "plain", "PLAIN.B64": "plain",
    "PLAIN.HEX": "plain", "BLF-CRYPT.B64": "bcrypt",
}  # fmt: skip


@needs.debian("dovecot")
@pytest.mark.parametrize(("wanted", "scheme"), DOVEADM.items())
def test_doveadm(wanted: str, scheme: str) -> None:
    text = run("doveadm", "pw", "-s", wanted, text=f"{PASSWORD}\n{PASSWORD}\n").splitlines()[-1]
    reads(text[text.index("{") :], scheme)


SLAPPASSWD = {
    "SSHA": "salted-sha1", "SHA": "sha1", "SMD5": "salted-md5", "MD5": "md5", "SSHA512": "salted-sha512",
    "SSHA256": "salted-sha256", "SHA512": "sha512", "ARGON2": "argon2i",
}  # fmt: skip


@needs.debian("slapd")
@pytest.mark.parametrize(("wanted", "scheme"), SLAPPASSWD.items())
def test_slappasswd(wanted: str, scheme: str) -> None:
    module = "argon2" if wanted == "ARGON2" else "pw-sha2"
    reads(
        run(
            "slappasswd",
            "-o",
            "module-path=/usr/lib/ldap",
            "-o",
            f"module-load={module}",
            "-h",
            f"{{{wanted}}}",
            "-T",
            "/dev/stdin",
            text=PASSWORD,
        ),
        scheme,
    )


@needs.debian("php")
@pytest.mark.parametrize(("algorithm", "scheme"), [("2y", "bcrypt"), ("argon2id", "argon2id"), ("argon2i", "argon2i")])
def test_php(algorithm: str, scheme: str) -> None:
    code = f"echo password_hash(stream_get_contents(STDIN), '{algorithm}', ['cost' => 5, 'memory_cost' => 1024]);"
    reads(run("php", "-r", code, text=PASSWORD), scheme)


# What we write


@pytest.mark.parametrize("form", sorted(WRITABLE))
def test_what_is_written_can_be_read(form: str) -> None:
    stored = parse(make(form, PASSWORD))
    assert stored.verify((PASSWORD,))
    assert not needs_update(stored, form)


@pytest.mark.parametrize("form", sorted(WRITABLE))
def test_what_is_written_is_salted(form: str) -> None:
    one, other = make_cheaply(form, PASSWORD), make_cheaply(form, PASSWORD)
    assert one != other
    assert not parse(one).verify((WRONG,))


@needs.debian("php")
@pytest.mark.parametrize("form", ["argon2id", "bcrypt", "sha512-crypt"])
def test_php_reads_what_is_written(form: str) -> None:
    code = "[$p, $h] = explode(\"\\n\", stream_get_contents(STDIN)); echo password_verify($p, $h) ? 'yes' : 'no';"
    assert run("php", "-r", code, text=f"{PASSWORD}\n{make_cheaply(form, PASSWORD)}") == "yes"
    assert run("php", "-r", code, text=f"{WRONG}\n{make_cheaply(form, PASSWORD)}") == "no"


@needs.debian("dovecot")
@pytest.mark.parametrize("form", ["dovecot-argon2id", "dovecot-scram-sha-256", "ssha512"])
def test_dovecot_reads_what_is_written(form: str) -> None:
    text = make(form, PASSWORD)
    assert "(verified)" in run("doveadm", "pw", "-t", text, "-p", PASSWORD)


def test_an_update_is_needed_for_another_scheme_or_less_work() -> None:
    assert needs_update(parse(VALUES["php bcrypt"][1]), "argon2id")
    assert needs_update(parse(VALUES["php bcrypt"][1]), "bcrypt")
    assert not needs_update(parse(VALUES["django bcrypt"][1]), "bcrypt")
    assert not needs_update(parse(VALUES["django pbkdf2"][1]), "ldap-pbkdf2-sha256")


def test_bcrypt_takes_no_more_than_72_bytes() -> None:
    text = make("bcrypt", "a" * 72, (5,))
    assert parse(text).verify(("a" * 72,))
    assert not parse(text).verify(("a" * 73,))
    assert not parse(text).verify(("\u00e4" * 37,))
    with pytest.raises(ValueError, match="72 bytes"):
        make("bcrypt", "a" * 73, (5,))


@pytest.mark.parametrize("form", ["django-bcrypt-sha256", "wordpress"])
def test_who_hashes_before_bcrypt_takes_any_length(form: str) -> None:
    stored = parse(make(form, "a" * 200, (5,)))
    assert stored.verify(("a" * 200,))
    assert not stored.verify(("a" * 201,))
    assert not stored.verify(("a" * 72,))


@pytest.mark.parametrize("form", sorted(WRITABLE))
def test_any_form_of_a_password_may_match(form: str) -> None:
    stored = parse(make_cheaply(form, "gr\u00fcn \u2603"))
    assert stored.verify(("wrong", "gr\u00fcn \u2603"))
    assert not stored.verify(())
    assert not stored.verify(("", "gr\u00fcn \u2603\0", "\0gr\u00fcn \u2603"))


@pytest.mark.parametrize("family", Hash)
def test_scram_keys_are_told(family: Hash) -> None:
    for prefix in ("", "dovecot-"):
        (entry,) = parse(make(f"{prefix}scram-{family.value.lower()}", PASSWORD)).scram
        assert (entry.hash, entry.iterations, len(entry.salt)) == (family, 10_000, 16)
        assert len(entry.stored_key) == len(entry.server_key) == family.length
    assert parse(VALUES["php bcrypt"][1]).scram == ()


def test_scram_of_rfc_5803() -> None:
    # The keys of RFC 5802 section 5 ("pencil"), in the form of RFC 5803, with and without the blanks of RFC 3112
    salt, stored, server = "QSXCR+Q6sek8bf92", "6dlGYMOdZcOPutkcNY8U2g7vK9Y=", "D+CSWLOshSulAsxiupA+qs2/fTE="
    for text in (f"SCRAM-SHA-1$4096:{salt}${stored}:{server}", f"SCRAM-SHA-1 $ 4096:{salt} $ {stored}:{server}"):
        reads(text, "scram-sha-1", "pencil")
    reads(f"{{SCRAM-SHA-1}}4096:{salt}${stored}:{server}", "scram-sha-1", "pencil")


def test_without_libcrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {form: run_or_make(form) for form in ("sha512-crypt", "yescrypt")}
    monkeypatch.setattr(crypt, "_crypt_rn", None)
    reads(values["sha512-crypt"], "sha512-crypt")
    reads(make("sha512-crypt", PASSWORD), "sha512-crypt")
    reads("$1$i1taM0gd$F/luJHq6/10Lg8o7y32eI/", "md5-crypt")
    with pytest.raises(UnsupportedHash, match="yescrypt: needs libcrypt"):
        parse(values["yescrypt"])


def run_or_make(form: str) -> str:
    if form in WRITABLE:
        return make(form, PASSWORD)
    return "$y$j9T$cA8E2ZsTuAmtuYB43okye1$dNrqtfD1k7ySVzC9YtFkWPJJmGi1AMDznH3OzdFG6PA"


# What is refused

TOO_COSTLY = {
    "argon2 memory": "$argon2id$v=19$m=4194304,t=1,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "argon2 passes": "$argon2id$v=19$m=1024,t=99999,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "argon2 lanes": "$argon2id$v=19$m=1024,t=1,p=64$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "bcrypt": "$2y$31$H9G7MFBJFMIQUi5iIMVWXuZEf/Y2YlEnywhKOX.wu0c.G6rZhVFL2",
    "wordpress": "$wp$2y$16$FGGaUysaRykeb2qpogfOk.bR3TwIeFZNFuK3J73VmRjjkeizN94/W",
    "pbkdf2": "pbkdf2_sha256$999999999$cHItpji6x1PBm0pnyLIV4t$GL9LBGJ0NHwQPuiQ3WpMk3kfHabtCz2LqwlZb5CDuHI=",
    "pbkdf2 dovecot": "{PBKDF2}$1$v.vfSzSruJ7f/60V$999999999$212adeb31bfa06ee4f9f323d7fbb27d489f6e33c",
    "scrypt": "scrypt:1048576:8:1$lUXlbWyyRzCzWqFN$6877f0efeeb2dbdacd2efa284fee9b7f4356d3819d790ef46d4e364d49f64c36",
    "scrypt times": "scrypt:16384:8:9999$lUXlbWyyRzCzWqFN$6877f0efeeb2dbdacd2efa284fee9b7f4356d3819d790ef46d4e364d49f64c36",
    "scrypt crypt": "$7$KU..../..../qr.6yQEsMt.ce078B6810$aGVt3Cj4cDBLjJ01MAcD.DD.TivhUjnw6fJmNJ4UOw7",
    "yescrypt": "$y$jGT$cA8E2ZsTuAmtuYB43okye1$dNrqtfD1k7ySVzC9YtFkWPJJmGi1AMDznH3OzdFG6PA",
    "sha-crypt": "$6$rounds=999999999$xp5GpWkn5yvcNfsY$ttzzHP8uDwEbBkygWUL9HEJNKx1uM3FQtMcSM.p2T1yg1Xt8k5jdvU84Ql.TJRyry0Mla/"
    "Hye0GsoDfG/y5b0.",
    "phpass": "$P$Z5twa54IoqSOK8VcGWf0EHqeYUQpIzY",
    "scram": "SCRAM-SHA-256$99999999:WO46cPhufsew3tppp1R0uQ==$s2NB85ctbws9+PBEANouFhlfZDHn20diaO/csXCyuuo=:"
    "uILHZ+xXAXPfsZ3kQisrc7bzAUE36ML8wIbEGGE4yfI=",
}


@pytest.mark.parametrize("text", TOO_COSTLY.values(), ids=TOO_COSTLY)
def test_a_value_that_would_keep_us_busy_is_refused_before_anything_is_computed(text: str) -> None:
    with pytest.raises(UnsupportedHash, match="costs more than a login may"):
        parse(text)


MALFORMED = [
    "$2y$05$short",
    "$2y$03$H9G7MFBJFMIQUi5iIMVWXuZEf/Y2YlEnywhKOX.wu0c.G6rZhVFL2",
    "$argon2id$v=19$m=1,t=2,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "$argon2id$v=19$m=1024,t=0,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "$argon2id$v=18$m=1024,t=1,p=1$dUhNMWQ2a0EwL3RGVG1zLw$V1TRfv4xC9+0QjtiIXd1jQeAb3kjxtS4ypmzgdQMSBo",
    "{SSHA512}not base64!",
    "{SSHA}msFLN7BUQmrX4OITetRm8v61Wpw=",
    "{SHA256}msFLN7BUQmrX4OITetRm8v61Wpw=",
    "{SSHA.ROT13}msFLN7BUQmrX4OITetRm8v61Wpw=",
    "{ARGON2ID}$2y$05$H9G7MFBJFMIQUi5iIMVWXuZEf/Y2YlEnywhKOX.wu0c.G6rZhVFL2",
    "{PLAIN}",
    "{PLAIN.HEX}zz",
    "{PLAIN.HEX}ff",
    "{CRYPT}*",
    "scrypt:5:8:1$lUXlbWyyRzCzWqFN$6877f0efeeb2dbdacd2efa284fee9b7f4356d3819d790ef46d4e364d49f64c36",
    "SCRAM-SHA-256$0:WO46cPhufsew3tppp1R0uQ==$s2NB85ctbws9+PBEANouFhlfZDHn20diaO/csXCyuuo=:uILHZ+xXAXPfsZ3kQis=",
    "SCRAM-SHA-256$4096:WO46cPhufsew3tppp1R0uQ==$6dlGYMOdZcOPutkcNY8U2g7vK9Y=:D+CSWLOshSulAsxiupA+qs2/fTE=",
    "$6$xp5GpWkn5yvcNfsY$1XJtej7zAZPpkhAeQoxrbSr6H3n0mTrV/l4WeDzD3q3",
    "{PBKDF2-SHA256}0$5/wfg5ASwnhvbU1pjRFCSA$mC07WW0Bq5HbEdYZ3Z9YDT28iOPnxA3KmNLk.zlxmys",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_a_malformed_value_matches_nothing(text: str) -> None:
    with pytest.raises(UnsupportedHash, match="malformed"):
        parse(text, WEAK)


@pytest.mark.parametrize(
    "text",
    ["", "!", "*", "!!", "!$6$abc$def", "*{SSHA}abc", "$", "{", "{}", "$$", "{NEW-SCHEME}abcdef", "$newscheme$abcdef$abc"],
)
def test_a_locked_or_unknown_value_matches_nothing(text: str) -> None:
    with pytest.raises(UnsupportedHash, match="unknown"):
        parse(text, WEAK)


def test_a_known_scheme_that_is_not_read_is_named() -> None:
    with pytest.raises(UnsupportedHash, match=re.escape("{CRAM-MD5}: not supported")):
        parse("{CRAM-MD5}00112233", WEAK)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("{PLAIN}" + PASSWORD, "plain"),
        ("{PLAIN.B64}ZmFrZSBwYXNzIHdvcmQ=", "plain"),
        ("{SSHA}vbKKU4r0Qmff0TEJpD11122wQjWicrvA", "salted-sha1"),
        ("{SHA}msFLN7BUQmrX4OITetRm8v61Wpw=", "sha1"),
        ("{SHA256}FyOU7JZPJrUvL20WfjvQIAntzMOPhBTMoHxICb4SKxQ=", "sha256"),
        ("{CRYPT}$1$i1taM0gd$F/luJHq6/10Lg8o7y32eI/", "md5-crypt"),
        ("{CRYPT}95s7rtFbO512A", "des-crypt"),
    ],
)
def test_a_weak_scheme_needs_to_be_allowed_by_name(text: str, scheme: str) -> None:
    assert parse(text, frozenset({scheme})).scheme == scheme
    for weak in (frozenset[str](), WEAK - {scheme}):
        with pytest.raises(UnsupportedHash, match=f"^{scheme}: weak"):
            parse(text, weak)


def test_a_bare_value_is_what_the_configuration_names() -> None:
    digest = "f6f53db718947909eec6cc038c194ad4"  # MD5 of PASSWORD
    assert parse(digest, frozenset({"md5", "plain"})).verify((PASSWORD,))
    assert not parse(digest, frozenset({"md5", "plain"})).verify((digest,))
    assert parse(digest, frozenset({"plain"})).verify((digest,))
    with pytest.raises(UnsupportedHash):
        parse(digest, frozenset({"sha1"}))
    assert parse("345NLjkAVYHio", frozenset({"des-crypt"})).verify((PASSWORD,))


def test_a_hash_is_never_taken_for_a_plain_password() -> None:
    plain = frozenset({"plain"})
    for text in [*(text for _, text in VALUES.values()), *TOO_COSTLY.values(), *MALFORMED, "!$6$abc", "{SSHA}abc"]:
        assert refusal(text, plain) or parse(text, plain).scheme != "plain"


def test_nothing_shows_a_value() -> None:
    stored = parse(make("scram-sha-256", PASSWORD))
    assert repr(stored) == "Stored('scram-sha-256', ...)"
    assert repr(stored.scram) == "(ScramEntry('SHA-256', ...),)"


def refusal(text: str, weak: frozenset[str] = WEAK - {"plain"}) -> str:
    """Return all that a traceback would tell of why a value is refused, "" if it is not."""
    try:
        parse(text, weak)
    except UnsupportedHash as error:
        return "".join(traceback.format_exception_only(error)) + str(error.__cause__)
    return ""


PREFIXES = [
    *("$2y$05$", "$2b$12$", "$argon2id$v=19$m=65536,t=3,p=4$", "$6$", "$6$rounds=5000$", "$y$j9T$", "$7$CU..../....", "$1$"),
    *("$P$B", "$wp$2y$05$", "$apr1$", "1|", "2|", "3|$argon2id$", "{SSHA}", "{SSHA512.HEX}", "{CRYPT}$", "{PBKDF2}$1$", "{"),
    *("pbkdf2_sha256$1000$", "pbkdf2:sha256:1000$", "scrypt:16384:8:1$", "scrypt$16384$", "argon2", "bcrypt_sha256$$2b$05$"),
    *("SCRAM-SHA-256$4096:", "{SCRAM-SHA-1}4096,", "{PLAIN}", "{PLAIN.B64}", "{MD5}", "$pbkdf2-sha512$1000$", "md5$", "!"),
]


@given(st.one_of(st.text(), st.sampled_from(PREFIXES).flatmap(lambda prefix: st.text().map(lambda rest: prefix + rest))))
def test_garbage_is_unsupported_and_nothing_else(text: str) -> None:
    for weak in (frozenset[str](), WEAK - {"plain"}):
        try:
            stored = parse(text, weak)
        except UnsupportedHash:
            continue
        assert stored.scheme in weak or not stored.weak
        assert stored.cost == () or stored.cost < (2**24,)


@given(st.sampled_from(sorted(VALUES)), st.integers(0, 200), st.characters(), st.sampled_from(["replace", "insert", "cut"]))
def test_a_damaged_value_is_refused_or_matches_nobody(name: str, place: int, letter: str, how: str) -> None:
    text = VALUES[name][1]
    place %= len(text)
    damaged = {
        "replace": text[:place] + letter + text[place + 1 :],
        "insert": text[:place] + letter + text[place:],
        "cut": text[:place],
    }[how]
    assert damaged[-8:] not in refusal(damaged) or len(damaged) < 24


@given(st.text("./0123456789abcdefXYZ$=+,:", min_size=20, max_size=80))
def test_a_refusal_repeats_nothing_of_the_value(text: str) -> None:
    for prefix in ("", "$", "{SSHA}", "$6$", "$newscheme$", "SCRAM-SHA-256$", "{PLAIN.B64}"):
        told = refusal(prefix + text)
        assert not any(text[i : i + 8] in told for i in range(len(text) - 7))


def test_the_page_names_every_weak_scheme_and_every_scheme_of_the_field() -> None:
    page = (Path(__file__).parent.parent / "docs" / "password-formats.md").read_text()
    words = set(re.findall(r"`([a-z0-9-]+)`", page))
    assert words >= WEAK
    families = {scheme.rpartition("-sha")[0] or scheme for scheme, _ in VALUES.values()}
    assert all(any(family in word for word in words) for family in families)
