"""A Docker engine of the tests' own, beside the one of this machine: nothing of it is left."""

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.live.mesh import NoMeshError, program

_GATEWAY = "docker_gwbridge"
"""The bridge that an engine in a Swarm makes, under the same name on every machine."""
_PATIENCE = 60


@contextmanager
def own_engine() -> Iterator[tuple[str, docker.APIClient]]:
    """Its address, and a client for it. Its containers have no network but the host's.

    Raises NoMeshError where none can be started.
    """
    if os.geteuid() != 0:
        raise NoMeshError("an engine of the tests' own needs root")
    dockerd = program("dockerd")
    bridges = _links()
    # A path of a socket has 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="md-engine-"))
    url = f"unix://{folder}/docker.sock"
    (folder / "daemon.json").write_text("{}")
    bridge = f"md{os.getpid()}"
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    subprocess.run(["ip", "address", "add", "192.0.2.1/29", "dev", bridge], check=True)
    subprocess.run(["ip", "link", "set", bridge, "up"], check=True)
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(dockerd, "--config-file", folder / "daemon.json", "--host", url),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                # With "none", it would take away the docker0 of the other engine.
                *("--pidfile", folder / "pid", "--bridge", bridge),
                *("--iptables=false", "--ip6tables=false", "--ip-forward=false"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with contextlib.closing(_connected(url, process, folder)) as client:
            yield url, client
            for each in client.containers(all=True):
                client.remove_container(each["Id"], force=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)
        subprocess.run(["ip", "link", "delete", bridge], check=True)
        if _GATEWAY in _links() - bridges:
            subprocess.run(["ip", "link", "delete", _GATEWAY], check=True)
        _unmounted(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _connected(url: str, process: "subprocess.Popen[bytes]", folder: Path) -> docker.APIClient:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if (folder / "docker.sock").exists():
            with contextlib.suppress(DockerException):
                return docker.APIClient(base_url=url, version="auto")
        time.sleep(0.2)
    said = (folder / "dockerd.log").read_text(errors="replace").splitlines()
    raise NoMeshError(f"no second Docker engine could be started: {said[-1:]}")


def _links() -> set[str]:
    return set(os.listdir("/sys/class/net"))  # noqa: PTH208 # of /sys


def _unmounted(folder: Path) -> None:
    """What an engine that ended in haste left mounted below its folder."""
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "-l", place], check=False)


def this_machine() -> bytes:
    """An image that has nothing but places: what runs in it is this machine's, mounted."""
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("bin", "lib", "lib32", "lib64", "sbin"):
            place = Path("/", name)
            if place.is_symlink():
                link = tarfile.TarInfo(name)
                link.type, link.linkname = tarfile.SYMTYPE, str(place.readlink())
                archive.addfile(link)
        for name in ("usr", "etc", "tmp", "var/run", "snapshots"):
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(member)
    return packed.getvalue()
