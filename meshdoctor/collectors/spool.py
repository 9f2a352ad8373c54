"""Where large answers wait until somebody reads them: in memory, then in a file without a name."""

import os
import tempfile
import threading
import weakref
from functools import partial
from typing import Final

from meshdoctor.snapshot.documents import Document

# What is smaller than this is not worth a read.
_LARGE: Final = 64 * 2**10
# The dumps of a laptop's mesh fit well, and are read again at once; a thousand sidecars' do not.
_IN_MEMORY: Final = 128 * 2**20


class Spool:
    """Keeps what is large out of memory, once there is much. The file is gone with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._end = 0
        self._in_memory = 0

    def keep(self, body: bytes) -> Document:
        """`body`, or how to read it back.

        Where the disk is full, or nothing may be written to any, it stays in memory.
        """
        if len(body) < _LARGE or not hasattr(os, "pwrite"):
            return body
        with self._lock:
            if self._in_memory + len(body) <= _IN_MEMORY:
                self._in_memory += len(body)
                return body
            try:
                descriptor = self._write(body)
            except OSError:
                return body
            start, self._end = self._end, self._end + len(body)
        return partial(self._read, descriptor, start, len(body))

    def _write(self, body: bytes) -> int:
        if self._descriptor is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115 # open as long as its documents live
            weakref.finalize(self, file.close)
            self._descriptor = file.fileno()
        left, at = memoryview(body), self._end
        while left:
            written = os.pwrite(self._descriptor, left, at)
            left, at = left[written:], at + written
        return self._descriptor

    def _read(self, descriptor: int, start: int, length: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(descriptor, length, start)):
            parts.append(part)
            start += len(part)
            length -= len(part)
        return b"".join(parts)
