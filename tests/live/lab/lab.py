"""The lab: a mesh of real programs on this machine's Docker, to break and to mend.

`python -m tests.live.lab.lab up` brings it up, `down` takes it away, `break FAULT` puts a fault
in, `calls` sends a request from every application to every service. Everything is started by the
Compose files in `compose/`, copied to a folder where a remedy may change them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from meshdoctor.collectors import Options
from meshdoctor.collectors.docker import connect
from meshdoctor.collectors.interface import CollectError, Deadline
from tests.live.lab import images
from tests.live.mesh import NoMeshError

PROJECT: Final = "consul"
APPLICATIONS: Final = (
    "details-v1",
    "productpage-v1",
    "ratings-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
)
SERVICES: Final = ("details", "productpage", "ratings", "reviews")
PORT: Final = 9080
_PATIENCE: Final = 60
_CONTROL_PLANE: Final = "install/consul/control-plane.yaml"
_APPLICATIONS: Final = "bookinfo/bookinfo.yaml"
_SIDECARS: Final = "bookinfo/bookinfo.sidecars.yaml"
_FILES: Final = (_CONTROL_PLANE, _APPLICATIONS, _SIDECARS)
API: Final = "http://127.0.0.1:8080"
CONSUL: Final = "http://127.0.0.1:8500"
PILOT: Final = "http://127.0.0.1:8081"


@dataclass(frozen=True)
class Call:
    """What a request from an application to a service met: `answered` is a service, or ""."""

    caller: str
    callee: str
    status: int
    answered: str
    error: str = ""


def _folder() -> Path:
    named = os.environ.get("MESHDOCTOR_LAB")
    return Path(named) if named else Path.home() / ".cache" / "meshdoctor-lab"


@dataclass
class Lab:
    """The mesh, running or not. `folder` holds its Compose files."""

    folder: Path = field(default_factory=_folder)
    engine: Any = field(init=False, default=None)
    unsure: bool = field(init=False, default=True)
    """Whether something may be wrong, for all that those who used it last know."""

    # ------------------------------------------------------------ up and down

    def require(self) -> None:
        """Raises NoMeshError where this machine cannot run it, saying what it lacks."""
        if os.geteuid() != 0:
            raise NoMeshError("the lab needs root: sidecars are read in their namespaces")
        for each in ("docker-compose", "kubectl", "curl"):
            if shutil.which(each) is None:
                raise NoMeshError(f"there is no {each} on this machine")
        try:
            connect(Options(), Deadline(30, 10)).close()
        except CollectError as error:
            raise NoMeshError(str(error)) from error
        self.engine = docker.from_env(timeout=120).api

    def up(self, say: Callable[[str], None] = lambda _said: None) -> None:
        """Bring all of it up, from nothing. Raises NoMeshError."""
        self.require()
        others = [
            each["Names"][0]
            for each in self.engine.containers(
                all=True, filters={"label": f"com.docker.compose.project={PROJECT}"}
            )
            if str(self.folder) not in each["Labels"].get(_WORKING_DIR, "")
        ]
        if others:
            raise NoMeshError(
                f"a Compose project of the name {PROJECT} is there already ({others[0][1:]}): "
                "take it away first"
            )
        self.down()
        images.make(self.engine, say)
        self.restore()
        say("starting the control plane")
        self.compose(_CONTROL_PLANE, "up", "-d", "etcd", "istio-apiserver", "consul")
        self.until(
            "the API server", lambda: self.kubectl("get", "virtualservices").returncode == 0
        )
        self.compose(_CONTROL_PLANE, "up", "-d")
        say("starting the applications")
        self.compose(_APPLICATIONS, "up", "-d")
        say("starting the sidecars")
        self.compose(_SIDECARS, "up", "-d")
        self.settle()

    def is_up(self) -> bool:
        """True where every call is right already."""
        return all(each.answered == each.callee for each in self.calls())

    def down(self) -> None:
        """Remove every container of the project, and its network."""
        if self.engine is None:
            self.require()
        filters = {"label": f"com.docker.compose.project={PROJECT}"}
        ids = [each["Id"] for each in self.engine.containers(all=True, filters=filters)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._remove, ids))
        with suppress(docker.errors.NotFound):
            self.engine.remove_network(f"{PROJECT}_istiomesh")

    def restore(self) -> None:
        """The Compose files as they are in the repository."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(images.HERE / "compose", self.folder)

    def _remove(self, id_: str) -> None:
        with suppress(docker.errors.NotFound):
            self.engine.remove_container(id_, force=True, v=True)

    # ------------------------------------------------------------ commands

    def file(self, name: str) -> Path:
        """The Compose file that a container or service of this name is started from."""
        if name in APPLICATIONS:
            return self.folder / _APPLICATIONS
        if name.endswith(("-init", "-sidecar")):
            return self.folder / _SIDECARS
        return self.folder / _CONTROL_PLANE

    def compose(self, file: str | Path, *arguments: str) -> None:
        """Raises NoMeshError with what Compose said."""
        self.run(["docker-compose", "-p", PROJECT, "-f", str(self.folder / file), *arguments])

    def recreate(self, *services: str) -> None:
        """Replace containers by what their Compose files say now."""
        by_file: dict[Path, list[str]] = {}
        for each in services:
            by_file.setdefault(self.file(each), []).append(each)
        for file, names in by_file.items():
            self.compose(file, "up", "-d", "--no-deps", "--force-recreate", *names)

    def renew(self, application: str) -> None:
        """An application, then what sits in its namespace, in the order it needs."""
        self.recreate(application)
        self.recreate(f"{application}-init", f"{application}-sidecar")

    def running(self, service: str) -> bool:
        """True while its container runs."""
        state = self.docker("inspect", "-f", "{{.State.Running}}", self.container(service))
        return state.strip() == "true"

    def address(self, service: str) -> str:
        """Its container's address on the mesh."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.docker("inspect", "-f", form, self.container(service)).strip()

    def container(self, service: str) -> str:
        """The name Compose v1 gives."""
        return f"{PROJECT}_{service}_1"

    def docker(self, *arguments: str) -> str:
        """Raises NoMeshError."""
        return self.run(["docker", *arguments])

    def run(self, command: Sequence[str]) -> str:
        """Raises NoMeshError."""
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment(), timeout=180
        )
        if done.returncode:
            said = (done.stderr or done.stdout)[-2000:].strip()
            raise NoMeshError(f"{' '.join(command)}: {said}")
        return done.stdout

    def kubectl(self, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        """Against the lab's API server, never another."""
        return subprocess.run(
            ["kubectl", "--kubeconfig", os.devnull, "-s", API, *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def apply(self, rules: str) -> None:
        """Write Istio rules. Raises NoMeshError."""
        done = self.kubectl("create", "--validate=false", "-f", "-", given=rules)
        if done.returncode:
            raise NoMeshError(f"kubectl: {done.stderr}")

    # ------------------------------------------------------------ what it does

    def calls(self) -> list[Call]:
        """One request from every running application to every service, really sent."""
        with ThreadPoolExecutor(len(APPLICATIONS)) as pool:
            return [call for found in pool.map(self._calls_of, APPLICATIONS) for call in found]

    def _calls_of(self, application: str) -> list[Call]:
        urls = [f"http://{each}:{PORT}/" for each in SERVICES]
        command = ["docker", "exec", self.container(application), "application", "call", *urls]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            said = done.stderr.strip()
            return [Call(application, each, 0, "", said) for each in SERVICES]
        return [
            Call(application, service, met["status"], met.get("service", ""), met.get("error", ""))
            for service, met in zip(SERVICES, json.loads(done.stdout), strict=True)
        ]

    def settle(self) -> None:
        """Wait until every call is answered by the service it names. Raises NoMeshError."""
        met: list[Call] = []

        def right() -> bool:
            met[:] = self.calls()
            return all(each.answered == each.callee for each in met)

        try:
            self.until("every call to be right", right)
        except NoMeshError as error:
            wrong = [each for each in met if each.answered != each.callee]
            raise NoMeshError(f"{error}: {wrong[:6]}") from error

    def rest(self) -> None:
        """Wait until the control plane has seen all, and every proxy has answered what it got.

        A proxy that refuses an update never acknowledges it, and a control plane that is gone sees
        nothing: after some seconds it is as still as it will be.
        """
        with suppress(NoMeshError, OSError, ValueError):
            # Another look may have begun before the change.
            seen = int(_page("/lab/looks")) + 2
            self.until("the control plane to look", lambda: int(_page("/lab/looks")) >= seen, 10)
            self.until("the proxies to answer", _all_answered, 5)

    def until(self, what: str, holds: Callable[[], bool], patience: float = _PATIENCE) -> None:
        """Raises NoMeshError."""
        end = time.monotonic() + patience
        while not holds():
            if time.monotonic() > end:
                raise NoMeshError(f"waited {patience} seconds for {what}")
            time.sleep(0.5)


def _page(path: str) -> bytes:
    """A page of the lab's control plane. Raises OSError."""
    with urllib.request.urlopen(f"{PILOT}{path}", timeout=5) as answer:  # noqa: S310 # the lab's
        held: bytes = answer.read()
    return held


def _all_answered() -> bool:
    kinds = ("cluster", "listener", "route", "endpoint")
    return all(
        each[f"{kind}_sent"] == each[f"{kind}_acked"]
        for each in json.loads(_page("/debug/syncz"))
        for kind in kinds
    )


_WORKING_DIR: Final = "com.docker.compose.project.working_dir"


def environment() -> Mapping[str, str]:
    """What programs get: the venv's meshdoctor first on the path, as for one who installed it."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "COMPOSE_IGNORE_ORPHANS": "1",
        "NO_COLOR": "1",
        # An editor that changes nothing: no test sits at a terminal.
        "KUBE_EDITOR": "true",
    }


def main(arguments: Sequence[str]) -> int:
    """`up`, `down`, `calls` or `break FAULT`."""
    lab = Lab()
    try:
        match arguments:
            case ["up"]:
                lab.up(print)
                print(f"The mesh is up. Its Compose files are in {lab.folder}.")  # noqa: T201
                print("Examine it: meshdoctor check")  # noqa: T201
            case ["down"]:
                lab.down()
                print("The mesh is gone.")  # noqa: T201
            case ["calls"]:
                lab.require()
                for each in lab.calls():
                    reached = each.answered or each.error
                    print(f"{each.caller:16}{each.callee:14}{each.status:<5}{reached}")  # noqa: T201
            case ["break", *names]:
                from tests.live.lab.faults import FAULTS  # noqa: PLC0415 # which need this module

                table = {each.name: each for each in FAULTS}
                if len(names) != 1 or names[0] not in table:
                    print("\n".join(table))  # noqa: T201 # its answer
                    return 0 if not names else 2
                lab.require()
                table[names[0]].put_in(lab)
            case _:
                print("usage: up | down | calls | break [FAULT]", file=sys.stderr)  # noqa: T201
                return 2
    except NoMeshError as error:
        print(f"The lab cannot run: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
