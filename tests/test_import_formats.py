"""What other servers write: Erlang terms, Lua data, SQL dumps, and the accounts in them."""

import sqlite3
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauth.imports import ejabberd, erlang, lua, prosody, sqldump
from extauth.imports.account import Found, Problem, merged
from extauth.imports.source import NoSource, accounts
from extauth.model import Identity
from extauth.passwords import scram
from extauth.passwords.format import ScramEntry
from extauth.passwords.scram import Hash

ALICE = Identity("alice", "xmpp.test")
SALT = b"0123456789abcdef"


def keys(family: Hash = Hash.SHA_1, iterations: int = 4096, password: str = "fake one") -> ScramEntry:
    made = scram.make(family, password, SALT, iterations)
    return ScramEntry(family, SALT, iterations, made.stored_key, made.server_key)


def b64(data: bytes) -> str:
    return b64encode(data).decode()


def told(items: object) -> tuple[dict[str, Found], list[str]]:
    """Return accounts by name, and problems."""
    assert not isinstance(items, Found)
    found = {str(item.identity): item for item in items if isinstance(item, Found)}  # type: ignore[attr-defined]
    return found, [str(item) for item in items if isinstance(item, Problem)]  # type: ignore[attr-defined]


# Erlang


TERMS: list[tuple[str, erlang.Term]] = [
    ("1.", 1),
    ("-5.", -5),
    ("16#ff.", 255),
    ("1.5e-3.", 0.0015),
    ("atom.", erlang.Atom("atom")),
    ("'quoted at\\om@x y'.", erlang.Atom("quoted atom@x y")),
    ('"text \\"x\\" \\x{41}\\101\\n\\s\\^a\\\\".', 'text "x" AA\n \x01\\'),
    ("<<>>.", b""),
    ('<<"ab\xc3\xbc">>.', "ab\xfc".encode()),
    ('<<"ab\xfc"/utf8>>.', "ab\xfc".encode()),
    ('<<"ab\xc3\xbc"/utf8>>.', "ab\xfc".encode()),
    ('<<1,2,"x",255>>.', b"\x01\x02x\xff"),
    ("{a,{},[],[1|2]}.", (erlang.Atom("a"), (), [], [1, 2])),
    ('% a comment\n [ {x , <<"y">>} ]\n.', [(erlang.Atom("x"), b"y")]),
]


@pytest.mark.parametrize(("text", "term"), TERMS)
def test_erlang_terms(text: str, term: erlang.Term) -> None:
    assert erlang.read(text) == term


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "1",
        "{1",
        "{1].",
        "<<300>>.",
        "<<a>>.",
        '<<"\u2603">>.',
        "<0.1.0>.",
        "X.",
        "1. 2",
        "99#1.",
        "[" * 100,
        '"\\x{110000}".',
    ],
)
def test_what_is_no_erlang_term(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        erlang.read(text)


@given(st.text("{}[]<>\"',.|#ab1/utf8 \\x\n") | st.text())
def test_any_text_is_a_term_or_none(text: str) -> None:
    try:
        erlang.read(text)
    except ValueError:
        return


# Lua


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('return {\n\t["a"] = "b";\n\t["n"] = 10000;\n};\n', {b"a": b"b", b"n": 10000}),
        ('return { a = 0x1F, b = -1.5e2; c = true; d = false; e = nil; "x"; "y" }', {
            b"a": 31, b"b": -150.0, b"c": True, b"d": False, b"e": None, 6: b"x", 7: b"y",
        }),
        ('return { ["t"] = { [1] = { }; }; }; -- a comment', {b"t": {1: {}}}),
        ('return "\\065\\x41\\n\\\'\\"\\\\gr\xc3\xbcn";', "AA\n'\"\\gr\xfcn".encode()),
        ("return 'x\\z  y';", b"xy"),
    ],
)  # fmt: skip
def test_lua_data(text: str, value: lua.Value) -> None:
    assert lua.read(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "return",
            "{}",
            "return os.exit()",
            "return {",
            "return {1 2}",
            'return "\\300"',
            "return function() end",
            "return x",
        ),
        *(
            'return {}; print("x")',
            "return { [{}] = 1 }",
            "return " + "{" * 100,
            'return "\u2603"',
            "return [[x]]",
            'return {["a"}',
        ),
    ],
)
def test_what_is_no_lua_data(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        lua.read(text)


@given((st.text("{}[]=;,\"'ab10x. \\-\n") | st.text()).map(lambda text: "return " + text))
def test_any_text_is_lua_data_or_none(text: str) -> None:
    try:
        lua.read(text)
    except ValueError:
        return


# SQL

MYSQL = """\
-- MariaDB dump 10.19  Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS `users`;
CREATE TABLE `users` (
  `username` varchar(191) NOT NULL,
  `password` text NOT NULL,
  `price` decimal(10,2) DEFAULT NULL,
  PRIMARY KEY (`username`),
  KEY `i` (`username`,`password`(10))
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
INSERT INTO `vcard` VALUES ('x','it\\'s\\nINSERT INTO `users` VALUES (\\'mallory\\',\\'x\\',1);\\n');
INSERT INTO `users` VALUES ('alice','it\\'s \\\\ \\"x\\"',1.50),
('bob','semi;colon),(',NULL);
INSERT INTO users_old VALUES ('carol','x',1);
"""
POSTGRES = """\
--
-- PostgreSQL database dump
--
CREATE FUNCTION public.f() RETURNS text AS $_$ BEGIN RETURN 'it''s'; END; $_$ LANGUAGE plpgsql;
CREATE TABLE public.users (
    username text NOT NULL,
    password text NOT NULL
);
COPY public.vcard (username, vcard) FROM stdin;
INSERT INTO users VALUES ('mallory', 'x');\t\\N
\\.

COPY public.users (username, "password") FROM stdin;
alice\tit's \\\\ \\tx
bob\t\\N
\\.
INSERT INTO public.users VALUES ('carol', E'a\\'b'), ('dave', 'C:\\');
"""
SQLITE = """\
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE users (
    username text PRIMARY KEY,
    password text NOT NULL
);
INSERT INTO vcard VALUES('x','
INSERT INTO users VALUES(''mallory'',''x'');
');
INSERT INTO "users" VALUES('alice','it''s \\ "x"
y');
COMMIT;
"""


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (MYSQL, [
            {"username": "alice", "password": 'it\'s \\ "x"', "price": "1.50"},
            {"username": "bob", "password": "semi;colon),(", "price": None},
        ]),
        (POSTGRES, [
            {"username": "alice", "password": "it's \\ \tx"},
            {"username": "bob", "password": None},
            {"username": "carol", "password": "a'b"},
            {"username": "dave", "password": "C:\\"},
        ]),
        (SQLITE, [{"username": "alice", "password": 'it\'s \\ "x"\ny'}]),
        ("INSERT INTO users(username, password) VALUES ('a', 'b');\ninsert into users (password) values ('c');", [
            {"username": "a", "password": "b"}, {"password": "c"},
        ]),
    ],
    ids=["mysql", "postgresql", "sqlite", "with columns"],
)  # fmt: skip
def test_sql_rows(text: str, rows: list[sqldump.Row]) -> None:
    assert list(sqldump.rows(text, "users")) == rows


@pytest.mark.parametrize(
    "text",
    [
        "INSERT INTO users (a) VALUES ('x', 'y');",
        "INSERT INTO users VALUES ('x');",
        "INSERT INTO users (a) VALUES (f('x'));",
        "INSERT INTO users (a) VALUES ('x')",
        "INSERT INTO users (a) VALUES ('x",
        "INSERT INTO users (a) SELECT 1;",
        "COPY users (a) FROM stdin;\nx\n",
        "COPY users (a) FROM stdin;\nx\ty\n\\.\n",
        "INSERT INTO other VALUES ('it\\'s'); INSERT INTO users (a) VALUES ('x');",  # which of two ways to escape is not told
    ],
)
def test_sql_that_is_not_understood(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        list(sqldump.rows(text, "users"))


@given(
    st.lists(
        st.sampled_from(
            ["INSERT INTO users", "VALUES", "(", ")", "'", ";", "COPY", "CREATE TABLE users", "a", "\n", ",", '"', "--", "/*"]
        )
    )
)
def test_any_text_is_sql_or_not(words: list[str]) -> None:
    try:
        list(sqldump.rows(" ".join(words), "users"))
    except ValueError:
        return


# Accounts


def dump(*records: str) -> str:
    return "{tables,[{passwd,[{record_name,passwd},{attributes,[us,password]}]}]}.\n" + "".join(f"{r}.\n" for r in records)


def test_a_dump_of_ejabberd() -> None:
    one, other = keys(), keys(Hash.SHA_512)
    stored, server, salt = b64(one.stored_key), b64(one.server_key), b64(SALT)
    text = dump(
        '{vcard,{<<"x">>,<<"y">>},{xmlel,<<"v">>,[],[]}}',
        '{passwd,{<<"alice">>,<<"xmpp.test">>},<<"it\'s \\"x\\"">>}',
        f'{{passwd,{{<<"bob">>,<<"xmpp.test">>}},\n        {{scram,<<"{stored}">>,<<"{server}">>,\n  <<"{salt}">>,sha,4096}}}}',
        f'{{passwd,{{<<"carol">>,<<"xmpp.test">>}},{{scram,<<"{stored}">>,<<"{server}">>,<<"{salt}">>,4096}}}}',
        f'{{passwd,{{<<"dave">>,<<"xmpp.test">>,sha512}},{{scram,<<"{b64(other.stored_key)}">>,<<"{b64(other.server_key)}">>,'
        f'<<"{salt}">>,sha512,4096}}}}',
        '{passwd,{<<"erin">>,<<"xmpp.test">>},{scram,<<"!">>,<<"x">>,<<"x">>,sha,4096}}',
        '{passwd,{<<"a b">>,<<"xmpp.test">>},<<"x">>}',
        '{passwd,{<<"frank">>,<<"xmpp.test">>},<<>>}',
        "{passwd,broken",
    )
    assert ejabberd.is_dump(text)
    found, problems = told(list(ejabberd.from_dump(text)))
    assert set(found) == {f"{user}@xmpp.test" for user in ("alice", "bob", "carol", "dave")}
    password = found["alice@xmpp.test"].password
    assert password is not None
    assert password.reveal() == 'it\'s "x"'
    assert found["bob@xmpp.test"].keys == found["carol@xmpp.test"].keys == (one,)
    assert found["dave@xmpp.test"].keys == (other,)
    assert problems == [
        "passwd record 5: not Base64",
        "passwd record 6: a local part with U+0020",
        "passwd record 7: frank@xmpp.test: neither a password nor SCRAM keys",
        "passwd record 8: not an Erlang term",
    ]


def test_the_table_users_of_ejabberd() -> None:
    one, other = keys(), keys(Hash.SHA_256)
    rows: list[sqldump.Row] = [
        {"username": "alice", "password": "fake", "serverkey": "", "salt": "", "iterationcount": "0"},
        {
            "username": "bob", "password": b64(one.stored_key), "serverkey": b64(one.server_key), "salt": b64(SALT),
            "iterationcount": "4096",
        },
        {
            "username": "carol", "password": f"sha256:{b64(other.stored_key)}", "serverkey": b64(other.server_key),
            "salt": b64(SALT), "iterationcount": "4096", "server_host": "other.test",
        },
        {"username": "dave", "password": ""},
        {"username": "erin", "password": "x", "serverkey": "x", "salt": "x", "iterationcount": "x"},
    ]  # fmt: skip
    found, problems = told(list(ejabberd.from_users(rows, "xmpp.test")))
    assert set(found) == {"alice@xmpp.test", "bob@xmpp.test", "carol@other.test"}
    assert found["bob@xmpp.test"].keys == (one,)
    assert found["carol@other.test"].keys == (other,)
    assert problems[0] == "row 4 of users: dave@xmpp.test: has no password"
    assert problems[1].startswith("row 5 of users: erin@xmpp.test: ")
    _, problems = told(list(ejabberd.from_users(rows[:1], "")))
    assert problems == ["row 1 of users: the table does not tell the domain: name it by --domain"]


def test_a_users_keys_have_one_iteration_count() -> None:
    sha1, sha256, sha512 = keys(), keys(Hash.SHA_256, 10_000), keys(Hash.SHA_512, 10_000)
    parts = [Found(ALICE, keys=(part,)) for part in (sha1, sha256, sha512)]
    found, problems = told(list(merged(parts)))
    assert set(found["alice@xmpp.test"].keys) == {sha256, sha512}
    assert problems == ["alice@xmpp.test: keys of SHA-1 left out: another iteration count than those of SHA-512"]


def test_files_of_prosody(tmp: Path) -> None:
    folder = tmp / "data" / "xmpp%2etest" / "accounts"
    folder.mkdir(parents=True)
    one = keys(Hash.SHA_256)
    hashed = (
        f'return {{\n\t["iteration_count"] = 4096;\n\t["stored_key"] = "{one.stored_key.hex()}";\n'
        f'\t["server_key"] = "{one.server_key.hex()}";\n\t["salt"] = "{SALT.decode()}";\n}};\n'
    )
    (folder / "alice.dat").write_text(hashed)
    (folder / "gr%c3%bcn.dat").write_text('return {\n\t["password"] = "fake\\\'two\\\\ \\"x";\n\t["disabled"] = true;\n};\n')
    (folder / "carol.dat").write_text("return os.exit();\n")
    (folder / "d%20e.dat").write_text(hashed)
    (folder / "%ff.dat").write_text(hashed)
    (folder / "frank.dat").write_text(hashed.replace(one.server_key.hex(), "00"))
    for path in (tmp / "data", folder.parent, folder):
        found, problems = told(list(accounts(path)))
        assert found["alice@xmpp.test"] == Found(ALICE, keys=(one,))
        password = found["gr\u00fcn@xmpp.test"].password
        assert password is not None
        assert password.reveal() == "fake'two\\ \"x"
        assert not found["gr\u00fcn@xmpp.test"].enabled
        assert [problem.removeprefix(f"{folder}/") for problem in problems] == [
            "%ff.dat: not UTF-8",
            "carol.dat: not Lua data",
            "d%20e.dat: a local part with U+0020",
            "frank.dat: no SCRAM keys",
        ]
    assert told(list(accounts(tmp / "data", "other.test")))[0] == {}


def test_the_table_of_prosody() -> None:
    one = keys()
    fields = {"stored_key": one.stored_key.hex(), "server_key": one.server_key.hex(), "salt": SALT.decode()}
    row: sqldump.Row = {"host": "xmpp.test", "user": "alice", "store": "accounts", "type": "string"}
    rows: list[sqldump.Row] = [
        *({**row, "key": key, "value": value} for key, value in fields.items()),
        {**row, "key": "iteration_count", "type": "number", "value": "4096"},
        {**row, "user": "bob", "key": "password", "value": "fake"},
        {**row, "user": "bob", "key": "disabled", "type": "boolean", "value": "true"},
        {**row, "user": "carol", "key": "created", "type": "number", "value": "1"},
        {**row, "user": "d e", "key": "password", "value": "x"},
        {**row, "user": "mallory", "store": "private", "key": "password", "value": "x"},
    ]
    found, problems = told(list(prosody.from_rows(rows)))
    assert found["alice@xmpp.test"] == Found(ALICE, keys=(one,))
    assert found["bob@xmpp.test"].enabled is False
    assert set(found) == {"alice@xmpp.test", "bob@xmpp.test"}
    assert problems == ["carol@xmpp.test: neither a password nor SCRAM keys", "d e@xmpp.test: a local part with U+0020"]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.sql", b"SELECT 1;", "no accounts"),
        ("x.sql", b"INSERT INTO users VALUES ('x');", "another number of columns"),
        ("x.bin", b"\xff\xfe", "can't decode"),
        ("x.db", b"SQLite format 3\0broken", "x.db: "),
        ("folder/", b"", "not a data folder of Prosody"),
        ("nothing", None, "No such file"),
    ],
)
def test_what_is_no_source(tmp: Path, name: str, content: bytes | None, why: str) -> None:
    path = tmp / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(NoSource, match=why):
        list(accounts(path))


def test_a_database_without_accounts_is_no_source_and_is_not_written_to(tmp: Path) -> None:
    path = tmp / "x.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    path.chmod(0o400)
    before = path.stat().st_mtime_ns
    with pytest.raises(NoSource, match="without a table of accounts"):
        list(accounts(path))
    assert path.stat().st_mtime_ns == before


@given(st.binary(max_size=200) | st.text().map(lambda text: dump(f'{{passwd,{{<<"x">>,<<"y">>}},{text}').encode()))
def test_any_file_is_a_source_or_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    try:
        list(accounts(path))
    except NoSource:
        return


def test_nothing_shows_a_key() -> None:
    one = keys()
    assert repr(one) == "ScramEntry('SHA-1', ...)"
