"""Statements: what is a parameter, what only looks like one, and what is refused."""

import sqlite3

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauth.sql.statement import MYSQL, POSTGRESQL, SQLITE, Dialect, Statement, compile_statement

DIALECTS = (SQLITE, POSTGRESQL, MYSQL)
KNOWN = ("user", "domain", "jid")


def compiled(sql: str, dialect: Dialect) -> Statement:
    return compile_statement(sql, dialect, KNOWN)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [(SQLITE, "SELECT ? || ?, ?"), (POSTGRESQL, "SELECT $1 || $2, $3"), (MYSQL, "SELECT %s || %s, %s")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_each_parameter_has_its_place(dialect: Dialect, text: str) -> None:
    statement = compiled("SELECT $user || $user, $jid", dialect)
    assert statement == Statement(text, ("user", "user", "jid"))
    assert statement.bind({"user": "alice", "jid": "alice@example.com", "domain": ""}) == [
        "alice",
        "alice",
        "alice@example.com",
    ]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "text",
    [
        *("'$user'", "'it''s $user'", '"$user"', "-- $user\n1", "/* $user */ 1", "a$user", "'--' || 1", "'/*' || '*/'", "1/2"),
        *('"a""$b"', "'\n$user'", "1 - -1", "x.y", "grün$user", "'' || '$user'"),
    ],
)
def test_what_only_looks_like_a_parameter_is_left_alone(dialect: Dialect, text: str) -> None:
    assert compiled(f"SELECT {text}", dialect) == Statement(f"SELECT {text}", ())


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        *((SQLITE, text) for text in ("`$user`", "[$user]", "1 % 2", "'a:b?@c'", "'\\'")),
        *(
            (POSTGRESQL, text)
            for text in (r"E'\'$user'", "$$ $user ' $$", "$a$ $$ $user $a$", "x::text", "ARRAY[1]", "a ? 'b'")
        ),
        *((POSTGRESQL, text) for text in ("'\\'", "1 % 2", "'$$'", "$user$ $domain $user$", "a ? 'b'")),
        *((MYSQL, text) for text in ("`$user`", "# $user\n1", "@a", "-- \n1")),
    ],
)
def test_quotations_of_one_database(dialect: Dialect, text: str) -> None:
    assert compiled(f"SELECT {text}", dialect) == Statement(f"SELECT {text}", ())


def test_what_a_driver_would_format_is_doubled() -> None:
    assert compiled("SELECT '100%s' % $user", MYSQL).text == "SELECT '100%%s' %% %s"


def test_a_semicolon_ends_the_statement() -> None:
    assert compiled("SELECT 1 ; \n", POSTGRESQL).text == "SELECT 1"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("SELECT $name", r"\$name: no such parameter; there are \$user, \$domain, \$jid"),
        ("SELECT $1", r"written \$user"),
        ("SELECT $", r"written \$user"),
        ("SELECT 'a", "does not end"),
        ('SELECT "a', "does not end"),
        ("SELECT /* a", "does not end"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1;;", "one statement"),
        ("SELECT /* /* */ $user */ 1", "comment within a comment"),
        ("SELECT '\0'", "NUL"),
        (" ", "is empty"),
        (";", "is empty"),
    ],
)
def test_what_no_database_would_understand_is_refused(dialect: Dialect, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        compiled(text, dialect)


@pytest.mark.parametrize(
    ("dialect", "text", "problem"),
    [
        (SQLITE, "SELECT ?", "written"),
        (SQLITE, "SELECT :user", "written"),
        (SQLITE, "SELECT @user", "written"),
        (POSTGRESQL, "SELECT $a$ $user", "does not end"),
        (POSTGRESQL, "SELECT E'\\'", "does not end"),
        (POSTGRESQL, "SELECT `a`", "does not end"),
        (MYSQL, "SELECT 'a\\' $user '", "sql_mode"),
        (MYSQL, 'SELECT "a\\" $user "', "sql_mode"),
        (MYSQL, "SELECT /*!50000 $user */", "executed"),
        (MYSQL, "SELECT /*M!50000 $user */", "executed"),
        (MYSQL, "SELECT 1 --$user", "blank"),
        (MYSQL, "SELECT $$", "written"),
    ],
)
def test_what_has_two_meanings_is_refused(dialect: Dialect, text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        compiled(text, dialect)


PIECES = st.lists(
    st.sampled_from(
        ["'", '"', "`", "--", "/*", "*/", "#", "$user", "$$", "$a$", "\\", ";", "%", "\n", " ", "a", "E'", "?", ":x", "["]
    )
    | st.characters()
)


@given(PIECES, st.sampled_from(DIALECTS))
@example(["$user", "'", "$user"], SQLITE)
def test_rubbish_is_read_or_refused_and_nothing_else(pieces: list[str], dialect: Dialect) -> None:
    try:
        statement = compiled("".join(pieces), dialect)
    except ValueError:
        return
    assert set(statement.names) <= set(KNOWN)


@given(PIECES)
@example(["'$user'", "||", "$user"])
def test_the_database_counts_the_same_parameters(pieces: list[str]) -> None:
    try:
        statement = compiled("SELECT " + "".join(pieces), SQLITE)
    except ValueError:
        return
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute(statement.text, ["x"] * len(statement.names))
    except sqlite3.ProgrammingError as error:
        assert "binding" not in str(error), statement  # noqa: PT017
    except (sqlite3.Error, UnicodeEncodeError):
        pass
    finally:
        connection.close()
