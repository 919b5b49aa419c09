"""Remove what nothing leads to any more. Runs in the writer thread."""

from __future__ import annotations

from collections.abc import Iterable

from kernelrepl.store import reading
from kernelrepl.store.database import Database
from kernelrepl.store.publish import DIGEST_BYTES

KEPT_OUTPUTS = 200
"""Executions of a session whose outputs are kept; older rows keep their code and status."""


def drop_superseded(db: Database) -> None:
    """Delete the rows of versions that are none of a session's present state. Their chunks are left to `sweep`."""
    with db.atomic():
        for key in reading.unreachable_components(db):
            db.execute(
                "UPDATE sessions SET size_bytes = size_bytes - (SELECT size_bytes FROM components WHERE id = ?1)"
                " WHERE id = (SELECT session FROM components WHERE id = ?1)",
                [key],
            )
            db.execute("UPDATE components SET to_commit = 0 WHERE id = ?", [key])
        db.execute("DELETE FROM components WHERE to_commit IS NOT NULL")
        db.execute("DELETE FROM names WHERE to_commit IS NOT NULL")
        db.execute(
            "UPDATE executions SET outputs = NULL WHERE outputs IS NOT NULL AND id <= (SELECT MAX(other.id) - ?"
            " FROM executions other WHERE other.session = executions.session)",
            [KEPT_OUTPUTS],
        )


def sweep(db: Database, keep: Iterable[bytes], most: int | None = None) -> bool:
    """Delete chunks that nothing uses, at most so many; whether there are more.

    What is unused is found anew each time, because a commit may have taken it up again.
    """
    unused = _unused(db, keep)
    with db.atomic():
        for row in unused[:most]:
            db.execute("DELETE FROM chunks WHERE rowid = ?", [row])
    return most is not None and len(unused) > most


def _unused(db: Database, keep: Iterable[bytes]) -> list[int]:
    """Rows of chunks that no component uses and that are not in `keep`."""
    used = set(keep)
    for (digests,) in db.execute("SELECT digests FROM components WHERE digests IS NOT NULL"):
        used.update(digests[i : i + DIGEST_BYTES] for i in range(0, len(digests), DIGEST_BYTES))
    return [row for row, digest in db.execute("SELECT rowid, digest FROM chunks") if digest not in used]
