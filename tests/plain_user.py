"""Tests that run as root, as somebody else: root may read anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_NOBODY: Final = 65534


@contextmanager
def as_plain_user(*entered: Path) -> Iterator[None]:
    """The rights of a plain user, who may enter these folders; whoever is none already keeps his.

    A test's own folder lies below two that only its owner may enter.
    """
    us = os.geteuid()
    if us == 0:
        for folder in entered:
            folder.chmod(0o755)
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(us)
