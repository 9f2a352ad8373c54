"""Two network namespaces with a wire between them, for calls that nat rules redirect."""

import ctypes
import os
import shutil
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

_PROGRAMS = ("ip", "iptables-save", "iptables-restore", "setpriv")
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Namespace:
    """A named network namespace."""

    name: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """What starts a command in it."""
        return ("ip", "netns", "exec", self.name)

    def run(self, command: str, text: str = "") -> str:
        done = subprocess.run(
            [*self.prefix, *command.split()],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in a thread that is in the namespace; its sockets stay there."""
        results: list[T] = []
        errors: list[BaseException] = []

        def enter() -> None:
            try:
                _enter(self.name)
                results.append(function())
            except BaseException as error:  # noqa: BLE001 # carried to the caller
                errors.append(error)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]


def _enter(name: str) -> None:
    """For this thread alone."""
    with Path(f"/run/netns/{name}").open("rb") as handle:
        if ctypes.CDLL(None, use_errno=True).setns(handle.fileno(), _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def _need_root_and_programs() -> None:
    reason = ""
    if os.geteuid() != 0:
        reason = "network namespaces need root"
    elif not all(shutil.which(program) for program in _PROGRAMS):
        reason = f"redirected calls need {', '.join(_PROGRAMS)}"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)


@contextmanager
def two_namespaces(
    here: tuple[str, ...], there: tuple[str, ...]
) -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces with these addresses (of one /16), a wire between them.

    Skips the test where that is not possible, except in CI.
    """
    _need_root_and_programs()
    tag = uuid.uuid4().hex[:6]
    names = [f"md{tag}{side}" for side in "ab"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
        first, second = map(Namespace, names)
        first.run(f"ip link add wire type veth peer name wire netns {second.name}")
        for namespace, addresses in ((first, here), (second, there)):
            namespace.run("ip link set lo up")
            for address in addresses:
                namespace.run(f"ip addr add {address}/16 dev wire")
            namespace.run("ip link set wire up")
        yield first, second
    except (subprocess.CalledProcessError, OSError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"network namespaces cannot be made here: {error}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
