"""The schema, as numbered migrations. A migration that has been released is never edited; the next one is appended.

Every table has a primary key of its own: SQLite keeps rows by it and gives them no number.
"""

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
    (
        # Of the keys of a name the one made last signs; `latest` is no earlier than the last expiry of what a key has signed.
        """CREATE TABLE token_key (
            domain TEXT NOT NULL, name TEXT NOT NULL, id TEXT NOT NULL, value BYTEA NOT NULL, imported INTEGER NOT NULL,
            made INTEGER NOT NULL, latest INTEGER NOT NULL,
            PRIMARY KEY (domain, name, id))""",
        # A family of tokens: one for each device. `seq` and `expires` are of the refresh token issued last, since `rotated`;
        # `ended` is 0 while it lives. `proven` and `made` are in milliseconds.
        """CREATE TABLE family (
            id TEXT NOT NULL PRIMARY KEY, domain TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL,
            proven INTEGER NOT NULL, made INTEGER NOT NULL, used INTEGER NOT NULL, ends INTEGER NOT NULL,
            seq INTEGER NOT NULL, rotated INTEGER NOT NULL, expires INTEGER NOT NULL,
            ended INTEGER NOT NULL, cause TEXT NOT NULL)""",
        "CREATE INDEX family_of_user ON family (domain, name)",
        "CREATE INDEX family_by_end ON family (ends)",
        # What was proven before `not_before` (in milliseconds) is void: of a user, or (name '') of all users of the domain.
        # `seq` is the user's sequence number, in the mode of MongooseIM.
        """CREATE TABLE token_horizon (
            domain TEXT NOT NULL, name TEXT NOT NULL, not_before INTEGER NOT NULL, seq INTEGER NOT NULL,
            PRIMARY KEY (domain, name))""",
        # One-time tokens that have been used, until they expire.
        """CREATE TABLE token_spent (mac TEXT NOT NULL PRIMARY KEY, expires INTEGER NOT NULL)""",
        "CREATE INDEX token_spent_by_expiry ON token_spent (expires)",
    ),
    (
        # Who has logged in by which backend, and when last, to a day.
        """CREATE TABLE seen (
            domain TEXT NOT NULL, name TEXT NOT NULL, backend TEXT NOT NULL, last INTEGER NOT NULL,
            PRIMARY KEY (domain, name, backend))""",
        "CREATE INDEX seen_by_backend ON seen (backend, last, domain)",
        "CREATE INDEX scram_key_by_credential ON scram_key (credential, hash, expires, domain)",
    ),
    (
        # App passwords and temporary tokens. `digest` is SHA-256 of the text; `used` is when it was used last, 0: never.
        """CREATE TABLE credential (
            id TEXT NOT NULL PRIMARY KEY, domain TEXT NOT NULL, name TEXT NOT NULL, kind TEXT NOT NULL, label TEXT NOT NULL,
            digest BYTEA NOT NULL, mechanism TEXT NOT NULL, one_time INTEGER NOT NULL,
            made INTEGER NOT NULL, expires INTEGER, used INTEGER NOT NULL)""",
        "CREATE INDEX credential_of_user ON credential (domain, name)",
        "CREATE INDEX credential_by_expiry ON credential (expires)",
    ),
    (
        # Whose a name is of those whom issuers of tokens know: the `subject` of `issuer` who logged in by it first.
        """CREATE TABLE subject (
            domain TEXT NOT NULL, name TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL,
            PRIMARY KEY (domain, name))""",
    ),
    (
        # The FAST tokens of a device are derived from counters: the newest, and the one in use until the newest is (0: none).
        """CREATE TABLE fast_token (
            domain TEXT NOT NULL, name TEXT NOT NULL, device TEXT NOT NULL, mechanism TEXT NOT NULL,
            counter INTEGER NOT NULL, expires INTEGER NOT NULL, in_use INTEGER NOT NULL, in_use_expires INTEGER NOT NULL,
            PRIMARY KEY (domain, name, device))""",
        "CREATE INDEX fast_token_by_expiry ON fast_token (expires)",
    ),
    (
        # The hashes that a user's own password has keys for, where these are not all: of imported accounts ("SHA-1 SHA-256").
        "ALTER TABLE scram_user ADD COLUMN hashes TEXT",
        "CREATE INDEX scram_user_of_few_hashes ON scram_user (hashes) WHERE hashes IS NOT NULL",
    ),
    (
        # SHA-256 of the cookie that a session of relogin keys is bound to, if it is.
        "ALTER TABLE family ADD COLUMN cookie BYTEA",
    ),
    (
        # The lifetimes (in seconds) that access tokens have had; none of them expires later than `latest`.
        "CREATE TABLE token_lifetime (seconds INTEGER NOT NULL PRIMARY KEY, latest INTEGER NOT NULL)",
        # The longest that one could have at the time `not_before`.
        "ALTER TABLE token_horizon ADD COLUMN lifetime INTEGER NOT NULL DEFAULT 0",
    ),
)

VERSION = len(MIGRATIONS)
