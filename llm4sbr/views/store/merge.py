"""Merge one store into another: the shards of a run on several processes, or the stores of machines."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from llm4sbr.views.store.database import DAMAGED, StoreError, checksum, named_errors, open_reader
from llm4sbr.views.store.store import ViewStore

_SHARDS = "shards"
_TABLES = ("answers", "localised", "failures", "runs")


def shard_of(path: Path, rank: int) -> Path:
    """Return the folder of the shard that one process of a run writes to."""
    return path / _SHARDS / f"{rank:05d}"


def merge_shards(store: ViewStore) -> int:
    """Merge the shards of all processes but the first, also those of killed runs; returns their number.

    A row is checked and copied before its shard is deleted, and copying twice changes nothing, so a kill in
    between loses no row. A shard that cannot be merged stays as it is.

    Raises:
        StoreError: A shard is damaged, is still being written, or holds other files instead of a database.
    """
    shards = sorted((store.path / _SHARDS).glob("*"))
    for path in shards:
        if path.is_symlink() or not path.is_dir():
            raise StoreError("this is not the folder of a shard, so it is left alone", path=path)
        shard = ViewStore(path)
        if shard.database.exists():
            shard.lock()
            try:
                merge_store(store, path)
            finally:
                shard.close()
        elif any(file.name != "writer.lock" for file in path.iterdir()):
            raise StoreError("this shard has files but no database, so it is left alone", path=path)
        with named_errors(path):
            shutil.rmtree(path)
    return len(shards)


def merge_store(store: ViewStore, other: Path) -> None:
    """Copy every answer, failure, view and run record of another store that this one lacks.

    Every row keeps its checksum, which does not depend on the file. All checksums are compared before the
    first row is copied: a damaged row would make this store unusable.

    Args:
        store: Store that receives the rows; this function takes its writer's lock.
        other: Folder of the other store.

    Raises:
        StoreError: The other store is missing or damaged, or this one cannot be written; nothing is copied.
    """
    store.lock()
    database = other / "views.sqlite"
    open_reader(database).close()  # checks the structure and the specs
    if database.samefile(store.database):
        return
    connection = store.connection
    with named_errors(store.database):
        connection.execute("ATTACH DATABASE ? AS other", (str(database),))
        try:
            connection.execute("BEGIN IMMEDIATE")
            _compare(connection, database)
            _copy(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute("DETACH DATABASE other")


def _compare(connection: sqlite3.Connection, database: Path) -> None:
    """Compare the checksum of every row of the other store, inside the transaction that copies them."""
    for table in _TABLES:
        query = (
            f"SELECT s.fingerprint, {', '.join(f'o.{name}' for name in _columns(connection, table))} "
            f"FROM other.{table} o JOIN other.specs s ON s.id = o.spec"
        )
        with closing(connection.execute(query)) as rows:  # an open cursor would keep the file attached
            for *fields, stored in rows:
                if checksum(*fields) != stored:
                    shown = fields[1].hex() if isinstance(fields[1], bytes) else fields[1]
                    raise StoreError(
                        "a row fails its checksum, so nothing of this store is merged",
                        path=database,
                        row=f"{table} {shown}",
                        hint=DAMAGED,
                    )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    """Columns of a table besides the spec's number, which differs between files; the checksum is last."""
    return [row[1] for row in connection.execute(f"PRAGMA main.table_info({table})") if row[1] != "spec"]


def _copy(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO specs (fingerprint, kind, json, created, checksum) "
        "SELECT fingerprint, kind, json, created, checksum FROM other.specs ORDER BY id"
    )
    for table in _TABLES:
        names = _columns(connection, table)
        columns = ", ".join(f"o.{name}" for name in names)
        connection.execute(
            f"INSERT OR IGNORE INTO {table} (spec, {', '.join(names)}) "
            f"SELECT mine.id, {columns} FROM other.{table} o JOIN other.specs theirs ON theirs.id = o.spec "
            "JOIN main.specs mine ON mine.fingerprint = theirs.fingerprint"
        )
    connection.execute(
        "DELETE FROM failures WHERE EXISTS (SELECT 1 FROM answers a "
        "WHERE a.spec = failures.spec AND a.session_key = failures.session_key)"
    )
