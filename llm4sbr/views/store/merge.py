"""Merge one store into another: the shards of a run on several processes, or the stores of machines."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from llm4sbr.views.store.database import named_errors, open_reader
from llm4sbr.views.store.store import ViewStore

_SHARDS = "shards"


def shard_of(path: Path, rank: int) -> Path:
    """Return the folder of the shard that one process of a run writes to."""
    return path / _SHARDS / f"{rank:05d}"


def merge_shards(store: ViewStore) -> int:
    """Merge the shards of all processes but the first, also those of killed runs; returns their number.

    A row is copied before its shard is deleted, and copying twice changes nothing, so a kill in between loses
    no row.

    Raises:
        StoreError: A shard is damaged or is still being written.
    """
    shards = sorted((store.path / _SHARDS).glob("*"))
    for path in shards:
        shard = ViewStore(path)
        if shard.database.exists():
            shard.lock()
            try:
                merge_store(store, path)
            finally:
                shard.close()
        with named_errors(path):
            shutil.rmtree(path)
    return len(shards)


def merge_store(store: ViewStore, other: Path) -> None:
    """Copy every answer, failure, view and run record of another store that this one lacks.

    Every row keeps its checksum, which does not depend on the file.

    Args:
        store: Store that receives the rows; this function takes its writer's lock.
        other: Folder of the other store.

    Raises:
        StoreError: The other store is missing or damaged, or this one cannot be written.
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
            _copy(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        finally:
            connection.execute("DETACH DATABASE other")


def _copy(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO specs (fingerprint, kind, json, created, checksum) "
        "SELECT fingerprint, kind, json, created, checksum FROM other.specs ORDER BY id"
    )
    for table in ("answers", "localised", "failures", "runs"):
        names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] != "spec"]
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
