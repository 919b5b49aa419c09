"""The database schema, as migrations. Append only: a released migration is never edited."""

from __future__ import annotations

import itertools

from kernelrepl.store import seals
from kernelrepl.store.database import Database, Migrations

migrations = Migrations("kernelrepl")


@migrations()
def create_tables(db: Database) -> None:
    for statement in _TABLES:
        db.execute(statement)


@migrations()
def describe_values_and_remember_expired_sessions(db: Database) -> None:
    db.execute("ALTER TABLE names ADD COLUMN summary TEXT NOT NULL DEFAULT ''")
    db.execute(
        "CREATE TABLE tombstones (owner TEXT NOT NULL, session_id TEXT NOT NULL, deleted_at TEXT NOT NULL,"
        " PRIMARY KEY (owner, session_id)) WITHOUT ROWID"
    )


@migrations()
def keep_the_chunks_of_a_component_in_its_row(db: Database) -> None:
    """Thousands of rows for each version of a large component cost more than what changed in it."""
    db.execute("ALTER TABLE components ADD COLUMN digests BLOB")
    rows = db.execute("SELECT component, digest FROM component_chunks ORDER BY component, position")
    for component, of_it in itertools.groupby(rows.fetchall(), key=lambda row: row[0]):
        digests = b"".join(digest for _, digest in of_it)
        db.execute("UPDATE components SET digests = ? WHERE id = ?", [digests, component])
    db.execute("DROP TABLE component_chunks")


@migrations()
def note_what_may_be_loaded_at_any_time(db: Database) -> None:
    """And the versions of the libraries that a component was saved with, for when it cannot be loaded with others."""
    db.execute("ALTER TABLE components ADD COLUMN inert INTEGER NOT NULL DEFAULT 0")
    db.execute("ALTER TABLE components ADD COLUMN packages TEXT NOT NULL DEFAULT '{}'")


@migrations()
def keep_earlier_states(db: Database) -> None:
    """Versions are found by session and by age. What is superseded until now has gaps: it is no history."""
    db.execute("ALTER TABLE sessions ADD COLUMN oldest_commit INTEGER NOT NULL DEFAULT 0")
    db.execute(
        "UPDATE sessions SET oldest_commit ="
        " COALESCE((SELECT MAX(id) FROM commits WHERE commits.session = sessions.id), 0)"
    )
    for table in ("components", "names"):
        db.execute(f"DROP INDEX closed_{table}")
        db.execute(f"DROP INDEX {table}_of_session")
        db.execute(f"CREATE INDEX {table}_of_session ON {table} (session, to_commit)")


@migrations()
def find_sessions_by_their_last_use(db: Database) -> None:
    db.execute("CREATE INDEX sessions_by_use ON sessions (owner, last_used_at)")
    db.execute("CREATE INDEX inactive_sessions ON sessions (owner) WHERE state = 'inactive'")


@migrations()
def remember_the_sessions_of_notebooks(db: Database) -> None:
    """By the path of the file, and by the ids of its cells: one that is renamed keeps its session."""
    db.execute(
        "CREATE TABLE notebooks (owner TEXT NOT NULL, path TEXT NOT NULL, session_id TEXT NOT NULL,"
        " cells TEXT NOT NULL, PRIMARY KEY (owner, path)) WITHOUT ROWID"
    )


@migrations()
def seal_rows(db: Database) -> None:
    """What a disk has changed is to be noticed. What is there now is taken as right."""
    db.execute("ALTER TABLE components ADD COLUMN data_seal BLOB")
    db.execute("ALTER TABLE executions ADD COLUMN outcome_seal BLOB")
    db.execute("ALTER TABLE sessions ADD COLUMN state_seal BLOB")
    db.execute("ALTER TABLE sessions ADD COLUMN live BLOB")
    for table in ("components", "names", "executions", "sessions", "notebooks", "tombstones"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN seal BLOB")
    seals.seal_all(db)


def is_known(db: Database) -> bool:
    """Whether no later version than this one has migrated the database."""
    if not db["_sqlite_migrations"].exists():
        return True
    found = {migration.name for migration in migrations.pending(db)} | {m.name for m in migrations.applied(db)}
    return found <= {migration.name for migration in migrations._migrations}


def look_at_tables(db: Database) -> None:
    """Raises an error of SQLite if one is missing: better now than in the middle of a session."""
    for table in ("sessions", "executions", "commits", "components", "names", "chunks", "tombstones", "notebooks"):
        db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchall()


_TABLES = (
    """
    CREATE TABLE sessions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        owner TEXT NOT NULL,
        session_id TEXT NOT NULL,
        state TEXT NOT NULL,
        created_at TEXT NOT NULL,
        last_used_at TEXT NOT NULL,
        total_executions INTEGER NOT NULL DEFAULT 0,
        execution_count INTEGER NOT NULL DEFAULT 0,
        variable_count INTEGER NOT NULL DEFAULT 0,
        size_bytes INTEGER NOT NULL DEFAULT 0,
        workspace TEXT NOT NULL,
        fixed TEXT NOT NULL,
        python TEXT,
        packages TEXT,
        UNIQUE (owner, session_id)
    )
    """,
    """
    CREATE TABLE executions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
        request_id TEXT NOT NULL UNIQUE,
        origin TEXT NOT NULL,
        code TEXT NOT NULL,
        status TEXT NOT NULL,
        execution_count INTEGER NOT NULL DEFAULT 0,
        started_at TEXT NOT NULL,
        finished_at TEXT,
        duration_s REAL NOT NULL DEFAULT 0,
        outputs TEXT,
        saved TEXT,
        not_saved TEXT,
        restored TEXT,
        commit_id INTEGER
    )
    """,
    "CREATE INDEX executions_of_session ON executions (session, id)",
    """
    CREATE TABLE commits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
        cause TEXT NOT NULL,
        execution INTEGER,
        created_at TEXT NOT NULL
    )
    """,
    "CREATE INDEX commits_of_session ON commits (session)",
    """
    CREATE TABLE components (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
        key INTEGER NOT NULL,
        from_commit INTEGER NOT NULL,
        to_commit INTEGER,
        roots TEXT NOT NULL,
        refs TEXT NOT NULL,
        segments TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        has_code INTEGER NOT NULL,
        magic TEXT NOT NULL,
        python TEXT NOT NULL,
        blocked TEXT,
        data BLOB
    )
    """,
    "CREATE UNIQUE INDEX live_components ON components (session, key) WHERE to_commit IS NULL",
    "CREATE INDEX closed_components ON components (to_commit) WHERE to_commit IS NOT NULL",
    "CREATE INDEX components_of_session ON components (session)",
    """
    CREATE TABLE names (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session INTEGER NOT NULL REFERENCES sessions(id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        from_commit INTEGER NOT NULL,
        to_commit INTEGER,
        root INTEGER,
        type TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        path TEXT,
        reason TEXT,
        execution INTEGER,
        updated_at TEXT NOT NULL
    )
    """,
    "CREATE UNIQUE INDEX live_names ON names (session, name) WHERE to_commit IS NULL",
    "CREATE INDEX names_of_session ON names (session)",
    "CREATE INDEX closed_names ON names (to_commit) WHERE to_commit IS NOT NULL",
    "CREATE TABLE chunks (digest BLOB PRIMARY KEY, data BLOB NOT NULL)",
    """
    CREATE TABLE component_chunks (
        component INTEGER NOT NULL REFERENCES components(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        digest BLOB NOT NULL REFERENCES chunks(digest),
        PRIMARY KEY (component, position)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX chunk_users ON component_chunks (digest)",
)
