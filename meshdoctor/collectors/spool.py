"""Where large answers wait until somebody reads them: a file without a name."""

import os
import tempfile
import threading
import weakref
from functools import partial
from typing import Final

from meshdoctor.snapshot.documents import Document

# The dumps of a thousand sidecars are gigabytes. What is smaller than this is not worth a read.
_LARGE: Final = 64 * 2**10


class Spool:
    """Keeps what is large out of memory. The file is gone when the process is."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 # open as long as its documents live
        weakref.finalize(self, self._file.close)
        self._end = 0

    def keep(self, body: bytes) -> Document:
        """`body`, or how to read it back. Where the disk is full it stays in memory."""
        if len(body) < _LARGE or not hasattr(os, "pread"):
            return body
        with self._lock:
            try:
                self._file.seek(self._end)
                self._file.write(body)
                self._file.flush()
            except OSError:
                return body
            start, self._end = self._end, self._end + len(body)
        return partial(self._read, start, len(body))

    def _read(self, start: int, length: int) -> bytes:
        parts = []
        while length > 0 and (part := os.pread(self._file.fileno(), length, start)):
            parts.append(part)
            start += len(part)
            length -= len(part)
        return b"".join(parts)
