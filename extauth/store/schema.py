"""The schema, as numbered migrations. A migration that has been released is never edited; the next one is appended."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        # `stamp` is new with every password: a unit of work writes keys only to the account whose stamp it has just set.
        """CREATE TABLE account (
            domain TEXT NOT NULL, name TEXT NOT NULL,
            disabled INTEGER NOT NULL, iterations INTEGER NOT NULL, stamp TEXT NOT NULL,
            created INTEGER NOT NULL, changed INTEGER NOT NULL,
            PRIMARY KEY (domain, name))""",
        # One salt per user and hash, shared by every credential of the user: SCRAM sends it before it knows which one comes.
        """CREATE TABLE scram_salt (
            domain TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, salt BYTEA NOT NULL,
            PRIMARY KEY (domain, name, hash))""",
        """CREATE TABLE scram_key (
            domain TEXT NOT NULL, name TEXT NOT NULL, hash TEXT NOT NULL, credential TEXT NOT NULL,
            stored_key BYTEA NOT NULL, server_key BYTEA NOT NULL,
            PRIMARY KEY (domain, name, hash, credential))""",
        # Random keys that every node and every restart must share.
        """CREATE TABLE secret (name TEXT NOT NULL PRIMARY KEY, value BYTEA NOT NULL)""",
    ),
    (
        # Users of any backend may have SCRAM credentials, also those who have no account here. `stamp` is new with the salts:
        # keys are added only to the salts that they were derived with.
        """CREATE TABLE scram_user (
            domain TEXT NOT NULL, name TEXT NOT NULL, iterations INTEGER NOT NULL, stamp TEXT NOT NULL,
            PRIMARY KEY (domain, name))""",
        "INSERT INTO scram_user (domain, name, iterations, stamp) SELECT domain, name, iterations, stamp FROM account",
        "ALTER TABLE account DROP COLUMN iterations",
        "ALTER TABLE scram_key ADD COLUMN added INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE scram_key ADD COLUMN expires INTEGER",
    ),
)

VERSION = len(MIGRATIONS)
