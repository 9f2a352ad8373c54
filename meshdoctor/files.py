"""Files that people name: read within a bound, whatever they are and whoever may look."""

import os
from pathlib import Path


def read_some(path: Path, most: int) -> bytes:
    """At most `most` bytes of a file, a pipe or a device. Raises OSError.

    A named pipe that nobody writes to is as an empty file: opening it waits for no one.
    """
    with open(path, "rb", opener=_at_once) as file:
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(file.fileno(), True)
        return file.read(most)


def _at_once(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


# Python's own, of a Path, raise where the folder may not be looked into: then there is a reason
# to say, which whoever opens the file gets.


def is_there(path: Path) -> bool:
    """Whether anything of that name is there, as far as this user may see."""
    return os.path.exists(path)  # noqa: PTH110 # it does not raise


def is_file(path: Path) -> bool:
    """Whether it is a regular file, as far as this user may see."""
    return os.path.isfile(path)  # noqa: PTH113 # it does not raise


def is_folder(path: Path) -> bool:
    """Whether it is a folder, as far as this user may see."""
    return os.path.isdir(path)  # noqa: PTH112 # it does not raise


def may_use(path: Path, mode: int) -> bool:
    """Whether this user may, by `os.R_OK` and its kin; as the kernel will judge it, if it can."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)
