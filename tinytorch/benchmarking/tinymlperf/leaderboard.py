"""The leaderboard: one SQLite file, which several processes may write to at once."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinytorch.benchmarking.tinymlperf import records
from tinytorch.benchmarking.tinymlperf.entries import Entry

# 2: each entry has a digest.
VERSION = 2
# "TTLB" in ASCII: tells the file from other SQLite databases.
_APPLICATION = 0x54544C42
_HEADER = b"SQLite format 3\0"
# A transaction takes milliseconds, so this is far more than any queue of writers needs.
_PATIENCE_S = 60.0


# What Python and SQLite raise about values: half a surrogate pair, more than 64 bits, another type.
_NOT_KEPT = (UnicodeEncodeError, OverflowError, TypeError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


class LeaderboardError(ValueError):
    """A leaderboard that cannot be read or written; the file is as it was."""


class Leaderboard:
    """Entries in a file.

    Args:
        path: is created where it does not exist.

    Raises:
        LeaderboardError: it is damaged, something else, or of another version; it stays as it is.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_file():
            raise LeaderboardError(self._said("is no leaderboard: it is a folder, a pipe or a device"))
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            start = file.read(len(_HEADER))
            if start and start != _HEADER:
                raise LeaderboardError(self._said("is no leaderboard: it is not an SQLite file"))
        with self._connection() as connection:
            self._prepare(connection)

    def add(self, entries: Sequence[Entry]) -> None:
        """Add entries: all of them or, where it fails, none.

        Raises:
            LeaderboardError: one is there already, is not consistent, or holds text or a number that SQLite
                cannot keep; the file cannot be written.
        """
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                for entry in entries:
                    records.insert(connection, entry)
                connection.execute("COMMIT")
            except (sqlite3.IntegrityError, *_NOT_KEPT) as error:
                connection.execute("ROLLBACK")
                raise self._not_added(entries, error) from None

    def has(self, entry_id: str) -> bool:
        """Return whether an entry is there."""
        query = "SELECT count(*) FROM entries WHERE entry_id = ?"
        with self._connection() as connection:
            return bool(connection.execute(query, (entry_id,)).fetchone()[0])

    def check_new(self, submission_id: str, name: str, machine: str) -> None:
        """Raise LeaderboardError where a submission has a rank on this kind of machine already."""
        query = "SELECT count(*) FROM entries WHERE submission_id = ? AND machine = ? AND refused IS NULL"
        with self._connection() as connection:
            if connection.execute(query, (submission_id, machine)).fetchone()[0]:
                raise LeaderboardError(self._known(name))

    def entries(
        self, event: str | None = None, division: str | None = None, machine: str | None = None
    ) -> list[Entry]:
        """Return entries in the order in which they came, only those of what is named.

        Raises:
            LeaderboardError: any entry, also of another event, is not as it was written.
        """
        try:
            with self._connection() as connection:
                found = records.read_all(connection)
        except LeaderboardError:
            raise
        except ValueError as error:
            raise LeaderboardError(self._said(f"is damaged ({error}): restore a copy of it")) from None
        named = {"event": event, "division": division, "machine": machine}
        wanted = {name: value for name, value in named.items() if value is not None}
        return [e for e in found if all(getattr(e, name) == value for name, value in wanted.items())]

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        connection = None
        try:
            connection = sqlite3.connect(self.path, timeout=_PATIENCE_S, isolation_level=None)
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        except sqlite3.DatabaseError as error:
            raise LeaderboardError(self._problem(error)) from None
        except UnicodeDecodeError:  # SQLite quotes what it cannot understand
            raise LeaderboardError(
                self._said("is damaged (text that is none): restore a copy of it")
            ) from None
        finally:
            if connection is not None:
                connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Check a file that is there, or create the table in one that is empty."""
        connection.execute("BEGIN")  # one view of the file: another process may be creating the table
        ready = self._checked(connection)
        connection.execute("COMMIT")
        if ready:
            return
        _into_wal(connection)
        connection.execute("BEGIN EXCLUSIVE")
        if not self._checked(connection):  # unless another process was faster
            connection.execute(records.TABLE)
            connection.execute(f"PRAGMA application_id = {_APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")

    def _checked(self, connection: sqlite3.Connection) -> bool:
        """Return whether the table is there, False for an empty file.

        Raises:
            LeaderboardError: it is another database, another version, or damaged.
        """
        version, application = (
            connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("user_version", "application_id")
        )
        count = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not (version or application or count):
            return False
        if application != _APPLICATION:
            raise LeaderboardError(self._said("is no leaderboard, but another SQLite database"))
        if version != VERSION:
            raise LeaderboardError(
                self._said(
                    f"is a leaderboard of version {version}, and this program knows version {VERSION}: use "
                    "the program that wrote it, or another file"
                )
            )
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            problem = " ".join(found.replace("*** in database main ***", "").split())
            raise LeaderboardError(self._said(f"is damaged ({problem}): restore a copy of it"))
        return True

    def _not_added(self, entries: Sequence[Entry], error: Exception) -> LeaderboardError:
        names = ", ".join(sorted({ascii(entry.name)[1:-1] for entry in entries}))
        if "UNIQUE" in str(error):
            return LeaderboardError(self._known(names))
        return LeaderboardError(f"{names} cannot be added to '{self.path}': {error}")

    def _known(self, name: str) -> str:
        return (
            f"{name} is on the leaderboard '{self.path}' already, measured on this kind of machine: nothing "
            "was added"
        )

    def _problem(self, error: sqlite3.DatabaseError) -> str:
        text = str(error)
        if "locked" in text or "busy" in text:
            return self._said(f"was being written to by others for {_PATIENCE_S:.0f} s: try again")
        if "unable to open" in text or "readonly" in text or "read-only" in text:
            return self._said("cannot be opened for writing: choose another file, in a folder that exists")
        if isinstance(error, sqlite3.OperationalError) and "full" in text:
            return self._said("cannot grow: the disk is full; what was there is still there")
        return self._said(f"is damaged ({text}): restore a copy of it")

    def _said(self, what: str) -> str:
        return f"'{self.path}' {what}"


def _into_wal(connection: sqlite3.Connection) -> None:
    """Let readers and a writer work at the same time; where another process is just doing so, wait for it."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            # SQLite does not wait for its timeout here.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return
