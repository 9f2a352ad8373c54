"""Entering the network namespace of a container: a thread goes in, no process is started."""

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeVar

from meshdoctor.collectors.interface import HungError, NotAnsweringError
from meshdoctor.evidence import access

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000
# How far the start of a process, in clock ticks since boot, may lie from what Docker says.
_CLOCK_SLACK: Final = 5.0


def check_reachable(pid: int, container_id: str, started_at: str) -> None:
    """Raise NotAnsweringError, with the reason, unless the process is here and is its own.

    An engine in a virtual machine, or on another host, tells process ids of its own, which here
    may be anybody's.
    """
    if sys.platform != "linux":
        raise NotAnsweringError("network namespaces can only be entered on Linux")
    if pid <= 0:
        raise NotAnsweringError("the engine tells no process id for it")
    process = f"/proc/{pid}"
    try:
        groups = _read(f"{process}/cgroup")
    except FileNotFoundError:
        raise NotAnsweringError(
            f"its process {pid} is not on this machine: the engine runs elsewhere"
        ) from None
    except OSError as error:
        raise NotAnsweringError(f"/proc/{pid} cannot be read: {error.strerror}") from error
    if container_id not in groups and not _started_at(process, started_at):
        raise NotAnsweringError(
            f"process {pid} of this machine is not the container's: the engine runs elsewhere"
        )


def _started_at(process: str, moment: str) -> bool:
    """True where the process started when Docker says that the container did."""
    try:
        # The name, in parentheses, may hold spaces; field 22 counts from behind it.
        fields = _read(f"{process}/stat").rpartition(")")[2].split()
        boot = next(
            int(line.split()[1])
            for line in _read("/proc/stat").splitlines()
            if line.startswith("btime ")
        )
        start = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
        # Docker writes nanoseconds, Python reads microseconds.
        claimed = datetime.fromisoformat(moment[:26].rstrip("Z")).replace(tzinfo=UTC).timestamp()
    except (OSError, ValueError, IndexError, StopIteration):
        return False
    return abs(start - claimed) < _CLOCK_SLACK


def _read(file: str) -> str:
    with open(file, encoding="utf-8", errors="replace") as opened:  # noqa: PTH123 # three a sidecar
        return opened.read()


def within(pid: int, work: Callable[[], T], patience: float) -> T:
    """What `work` gives when it runs in the network namespace of process `pid`.

    It runs on a thread of its own that ends with it, so that no other code can find itself in
    the namespace; sockets it opens and processes it starts are inside. Raises what `work` does,
    NotAnsweringError where the namespace cannot be entered, and HungError after `patience`
    seconds, when the thread is left to itself.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def inside() -> None:
        try:
            _enter(pid)
            results.append(work())
        except BaseException as error:  # noqa: BLE001 # raised again by the thread that waits
            failures.append(error)

    thread = threading.Thread(target=inside, name=f"namespace-{pid}", daemon=True)
    thread.start()
    thread.join(patience)
    if failures:
        raise failures[0]
    if not results:
        raise HungError(f"nothing came out of its network namespace in {patience:.3g} seconds")
    return results[0]


def _enter(pid: int) -> None:
    try:
        descriptor = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(descriptor)
        finally:
            os.close(descriptor)
    except PermissionError as error:
        raise NotAnsweringError(f"{access.NEEDS_ROOT}: run meshdoctor with sudo") from error
    except FileNotFoundError as error:
        raise NotAnsweringError("its process has ended") from error
    except OSError as error:
        raise NotAnsweringError(
            f"its network namespace cannot be entered: {error.strerror}"
        ) from error


def _setns(descriptor: int) -> None:
    if sys.version_info >= (3, 12):
        os.setns(descriptor, os.CLONE_NEWNET)
        return
    if _libc().setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
