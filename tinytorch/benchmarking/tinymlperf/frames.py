"""Messages between the referee and a player: a line of JSON and an array, and nothing that can run."""

from __future__ import annotations

import json
import math
import os
import select
import struct
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_LENGTHS = struct.Struct("<II")
_KINDS = "biuf"
_MOST_BYTES = 1 << 28
_MOST_TEXT = 1 << 20


class Closed(Exception):  # noqa: N818 - it says what happened
    """The other side is gone."""


class TooLate(Exception):  # noqa: N818 - it says what happened
    """The other side took longer than it may."""


class Malformed(Exception):  # noqa: N818 - it says what it is
    """What came is no message."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What JSON can say, and an array of real numbers where there is one."""

    text: dict[str, Any]
    array: Array | None = None


def send(descriptor: int, frame: Frame, limit_s: float | None = None) -> None:
    """Write a frame.

    Args:
        descriptor: of a pipe; one that does not block, where there is a limit.
        frame: is written.
        limit_s: for all of it; None waits for ever.

    Raises:
        Closed: the other side is gone.
        TooLate: the limit passed, as when the other side does not read.
    """
    text, content = dict(frame.text), b""
    if frame.array is not None:
        content = np.ascontiguousarray(frame.array).tobytes()
        text |= {"dtype": frame.array.dtype.str, "shape": list(frame.array.shape)}
    head = json.dumps(text).encode()
    rest = memoryview(_LENGTHS.pack(len(head), len(content)) + head + content)
    deadline = None if limit_s is None else time.monotonic() + limit_s
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            _wait(descriptor, select.POLLOUT, deadline)
        except OSError:
            raise Closed from None


def receive(descriptor: int, limit_s: float | None = None) -> Frame:
    """Read a frame.

    Args:
        descriptor: of a pipe.
        limit_s: for all of it; None waits for ever.

    Raises:
        Closed: the other side is gone.
        TooLate: the limit passed.
        Malformed: it is no frame, or one larger than 256 MB.
    """
    deadline = None if limit_s is None else time.monotonic() + limit_s
    texts, contents = _LENGTHS.unpack(_exactly(descriptor, _LENGTHS.size, deadline))
    if texts > _MOST_TEXT or contents > _MOST_BYTES:
        raise Malformed(f"a message of {texts + contents} bytes")
    head, content = _exactly(descriptor, texts, deadline), _exactly(descriptor, contents, deadline)
    try:
        text = json.loads(head)
        if not isinstance(text, dict):
            raise Malformed("a message that is no object")
        if "dtype" not in text:
            return Frame(text)
        kind = np.dtype(str(text["dtype"]))
        shape = tuple(int(size) for size in text["shape"])
        if (
            kind.kind not in _KINDS
            or min(shape, default=0) < 0
            or math.prod(shape) * kind.itemsize != contents
        ):
            raise Malformed(f"an array of {kind} and shape {shape} in {contents} bytes")
        return Frame(text, np.frombuffer(content, kind).reshape(shape))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Malformed("a message that cannot be read") from None


def _exactly(descriptor: int, count: int, deadline: float | None) -> bytearray:
    buffer = bytearray(count)
    view, have = memoryview(buffer), 0
    while have < count:
        if deadline is not None:
            _wait(descriptor, select.POLLIN, deadline)
        got = os.readv(descriptor, [view[have:]])
        if got == 0:
            raise Closed
        have += got
    return buffer


def _wait(descriptor: int, until: int, deadline: float | None) -> None:
    poller = select.poll()
    poller.register(descriptor, until)
    left_s = None if deadline is None else deadline - time.monotonic()
    if (left_s is not None and left_s <= 0) or not poller.poll(None if left_s is None else left_s * 1000):
        raise TooLate
