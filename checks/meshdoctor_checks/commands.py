"""Commands to paste: for Compose as this mesh uses it, for Docker, and for this Consul."""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from meshdoctor.evidence.docker import Container
from meshdoctor.topology import Mesh, Role, Workload

CONSUL_PORT: Final = 8500
_ANY_ADDRESS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 # how Docker writes "any"


def compose(container: Container, *arguments: str) -> str:
    """A Compose command for the project and the files that this container was started from."""
    return compose_with(container, compose_files(container), *arguments)


def compose_with(container: Container, files: Sequence[str], *arguments: str) -> str:
    """A Compose command for this container's project, with files of the caller's choice."""
    program = ("docker-compose",) if _is_v1(container) else ("docker", "compose")
    named = [word for file in files for word in ("-f", file)]
    return shlex.join((*program, "-p", container.compose_project, *named, *arguments))


def _is_v1(container: Container) -> bool:
    return container.compose_version.startswith("1.")


def compose_files(container: Container) -> tuple[str, ...]:
    """Its Compose files by full path, as far as Compose's labels tell."""
    folder = container.labels.get("com.docker.compose.project.working_dir", "")
    return tuple(str(PurePath(folder, file)) for file in container.compose_files)


def start(container: Container) -> str:
    """Start a container that stopped."""
    if container.compose_service:
        return compose(container, "up", "-d", "--no-deps", container.compose_service)
    return shlex.join(("docker", "start", container.name))


def restart(container: Container) -> str:
    """Restart a container as it is."""
    return shlex.join(("docker", "restart", container.name))


def recreate(containers: Sequence[Container]) -> tuple[str, ...]:
    """Replace Compose's containers by new ones of the same settings, one command a project.

    What Compose did not start is only restarted: nobody else knows how it was run.
    """
    by_project: dict[tuple[str, ...], list[Container]] = {}
    others = []
    for container in containers:
        if container.compose_service:
            key = (container.compose_project, *compose_files(container))
            by_project.setdefault(key, []).append(container)
        else:
            others.append(container)
    commands = [
        compose(
            group[0],
            "up",
            "-d",
            "--no-deps",
            "--force-recreate",
            *dict.fromkeys(each.compose_service for each in group),
        )
        for group in by_project.values()
    ]
    return (*commands, *(restart(each) for each in others))


def recreate_with_sidecars(workloads: Sequence[Workload]) -> tuple[str, ...]:
    """Replace applications, then what sits in their network namespaces, in the order it needs.

    A new application container has a new namespace: the redirect must be installed in it again,
    and the sidecar must join it.
    """
    applications = [each.container for each in workloads if each.container is not None]
    inits = [init for each in workloads for init in each.inits]
    sidecars = [
        sidecar.container
        for each in workloads
        for sidecar in each.sidecars
        if sidecar.container is not None
    ]
    return tuple(
        command for group in (applications, inits, sidecars) for command in recreate(group)
    )


def logs(container: Container) -> str:
    """Show the last lines a container wrote."""
    return shlex.join(("docker", "logs", "--tail", "50", container.name))


def consul_url(mesh: Mesh) -> str | None:
    """Consul's HTTP API as this host reaches it, None where it is not published."""
    consul = mesh.component(Role.CONSUL)
    if consul is None:
        return "http://127.0.0.1:8500"
    for each in consul.container.published:
        if (each.port, each.protocol) == (CONSUL_PORT, "tcp"):
            host = "127.0.0.1" if each.host_address in _ANY_ADDRESS else each.host_address
            return f"http://{host}:{each.host_port}"
    return None


def deregister(mesh: Mesh, ids: Sequence[str]) -> tuple[str, ...]:
    """Take instances out of Consul's catalogue, through the agent that holds them."""
    url = consul_url(mesh)
    if url is not None:
        return tuple(
            shlex.join(("curl", "-fsS", "-X", "PUT", f"{url}/v1/agent/service/deregister/{each}"))
            for each in ids
        )
    consul = mesh.component(Role.CONSUL)
    name = consul.name if consul is not None else "consul"
    return tuple(
        shlex.join(("docker", "exec", name, "consul", "services", "deregister", f"-id={each}"))
        for each in ids
    )


def see_that_it_worked(*codes: str) -> str:
    """The last step of every remedy."""
    return shlex.join(("meshdoctor", "check", "--select", ",".join(codes)))


def quoted(*words: str) -> str:
    """One command of these words, quoted for a shell."""
    return shlex.join(words)


def replace_in_file(old: str, new: str, files: Sequence[str]) -> str:
    """Change an image in the Compose files, in place, keeping a copy beside each."""
    pattern = re.sub(r"([][\\.*^$#])", r"\\\1", old)
    return shlex.join(("sed", "-i.before", f"s#{pattern}#{new}#", *files))


def run_again(container: Container, image: str) -> str:
    """`docker run` with the settings of a container that Compose did not start."""
    words = ["docker", "run", "-d", "--name", container.name]
    if container.network_mode not in ("", "default", "bridge"):
        words += ["--network", container.network_mode]
    for bind in container.binds:
        words += ["-v", bind]
    for each in container.published:
        host = f"{each.host_address}:" if each.host_address not in _ANY_ADDRESS else ""
        words += ["-p", f"{host}{each.host_port}:{each.port}/{each.protocol}"]
    for name, value in container.environment.items():
        words += ["-e", f"{name}={value}"]
    return shlex.join((*words, image, *container.command[1:]))
