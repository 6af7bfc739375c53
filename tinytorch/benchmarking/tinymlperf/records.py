"""Entries as rows of a table, each with a digest that tells whether it is as it was written."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from dataclasses import fields
from typing import Any

from tinytorch.benchmarking.tinymlperf.entries import Entry

TABLE = """
CREATE TABLE entries (
    number INTEGER PRIMARY KEY,
    entry_id TEXT UNIQUE NOT NULL,
    submission_id TEXT NOT NULL,
    name TEXT NOT NULL,
    event TEXT NOT NULL,
    division TEXT NOT NULL,
    machine TEXT NOT NULL,
    scenario TEXT NOT NULL,
    refused TEXT,
    ratio REAL,
    low REAL,
    high REAL,
    quality REAL,
    latency_ms REAL,
    latency_bound_ms REAL,
    throughput_per_s REAL,
    badges TEXT NOT NULL,
    own_code INTEGER NOT NULL,
    weights_sha256 TEXT NOT NULL,
    revision TEXT,
    submitted_at TEXT NOT NULL,
    log BLOB NOT NULL,
    digest TEXT NOT NULL,
    CHECK (
        (refused IS NOT NULL AND ratio IS NULL AND low IS NULL AND high IS NULL)
        OR (refused IS NULL AND coalesce(0 < low AND low <= ratio AND ratio <= high, 0))
    )
) STRICT
"""

_COLUMNS = tuple(field.name for field in fields(Entry))
_NAMES = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO entries ({_NAMES}, digest) VALUES ({', '.join('?' for _ in _COLUMNS)}, '')"  # noqa: S608
_SELECT = f"SELECT number, {_NAMES}, digest FROM entries"  # noqa: S608 - constants, as above


def insert(connection: sqlite3.Connection, entry: Entry) -> None:
    """Write an entry, inside a transaction.

    Raises:
        sqlite3.IntegrityError: it is there already, or not consistent.
        ValueError, OverflowError, sqlite3.Error: a value is none that SQLite can keep.
    """
    values = {name: getattr(entry, name) for name in _COLUMNS}
    values |= {"badges": json.dumps(entry.badges), "own_code": int(entry.own_code)}
    number = connection.execute(_INSERT, tuple(values.values())).lastrowid
    # Of what is there now: SQLite keeps 2 as 2.0 where a column is of reals.
    row = connection.execute(f"{_SELECT} WHERE number = ?", (number,)).fetchone()
    connection.execute("UPDATE entries SET digest = ? WHERE number = ?", (_digest(row), number))


def read_all(connection: sqlite3.Connection) -> list[Entry]:
    """Return all entries in the order in which they came.

    Raises:
        ValueError: one is not as it was written.
    """
    return [_entry(row) for row in connection.execute(f"{_SELECT} ORDER BY number").fetchall()]


def _digest(row: tuple[Any, ...]) -> str:
    return hashlib.sha256(repr(row[:-1]).encode()).hexdigest()


def _entry(row: tuple[Any, ...]) -> Entry:
    if row[-1] != _digest(row):
        raise ValueError(f"entry {row[0]} is not as it was written")
    values = dict(zip(_COLUMNS, row[1:-1], strict=True))
    values |= {"badges": tuple(json.loads(values["badges"])), "own_code": bool(values["own_code"])}
    return Entry(**values)
