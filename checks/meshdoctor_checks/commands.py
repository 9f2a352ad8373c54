"""Commands to paste: for Compose as this mesh uses it, for Docker, and for this Consul."""

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import quote

from meshdoctor.evidence.consul import Instance
from meshdoctor.evidence.docker import EVERYWHERE, Container
from meshdoctor.kinds.istio_consul import PROXY_UID, VIRTUAL_PORT
from meshdoctor.topology import Mesh, Role, Workload
from meshdoctor_checks import compose_edits
from meshdoctor_checks.compose_edits import Change, Edit, Variable

CONSUL_PORT: Final = 8500

_REDIRECT_IMAGE: Final = "istio/proxy_init:0.7.1"
"""Later ones redirect nothing with these two options alone; Istio's own Compose files take it."""
_REDIRECT: Final = ("-p", str(VIRTUAL_PORT), "-u", PROXY_UID)


# ---------------------------------------------------------------- Compose


def compose(container: Container, *arguments: str) -> str:
    """A Compose command for the project and the files that this container was started from."""
    return compose_with(container, container.compose_paths, *arguments)


def compose_with(container: Container, files: Sequence[str], *arguments: str) -> str:
    """A Compose command for this container's project, with files of the caller's choice."""
    program = ("docker-compose",) if _is_v1(container) else ("docker", "compose")
    named = [word for file in files for word in ("-f", file)]
    return shlex.join((*program, "-p", container.compose_project, *named, *arguments))


def _is_v1(container: Container) -> bool:
    return container.compose_version.startswith("1.")


def change(mesh: Mesh, containers: Iterable[Container], *edits: Edit) -> Change:
    """The same edits of the Compose file for each of these containers."""
    return change_each(mesh, [(each, edits) for each in containers])


def change_each(mesh: Mesh, wanted: Iterable[tuple[Container, Sequence[Edit]]]) -> Change:
    """Edits of the Compose files that containers were started from, where Compose started them.

    Where a file could be read, and the edit is certain, this is a patch of it with the command
    that applies it; else the lines to change, with the name of the file.
    """
    groups: dict[_Files, list[tuple[Container, Sequence[Edit]]]] = {}
    for container, edits in wanted:
        if container.compose_service and edits:
            groups.setdefault(_files(container), []).append((container, edits))
    patches: dict[str, None] = {}
    applying: list[str] = []
    for (_, files), group in groups.items():
        named = [(each.compose_service, edits) for each, edits in group]
        found = compose_edits.change(mesh.compose_files, files, named)
        if found is not None:
            patches.update(dict.fromkeys((found.patch,) if found.patch is not None else ()))
            applying += found.commands
            continue
        patches.update(dict.fromkeys(_fragment(each, edits) for each, edits in group))
    return Change("\n".join(patches) or None, tuple(applying))


def setting(container: Container, key: str, port: int, value: str) -> Variable:
    """SERVICE_<key> for a port, under the name by which the container sets it already."""
    return setting_in({**container.labels, **container.environment}, key, port, value)


def setting_in(there: Mapping[str, str | None], key: str, port: int, value: str) -> Variable:
    """The same among the settings of what is no container yet."""
    names = (f"SERVICE_{port}_{key}", f"SERVICE_{key}")
    name = next((each for each in names if each in there), names[1])
    return Variable(name, value, there.get(name))


def _fragment(container: Container, edits: Sequence[Edit]) -> str:
    lines = dict.fromkeys(line for each in edits for line in each.fragment)
    files = (f"# {file}" for file in container.compose_paths)
    return "\n".join((*files, f"   {container.compose_service}:", *lines))


_Files = tuple[str, tuple[str, ...]]


def _files(container: Container) -> _Files:
    """The project and the files of it: what these are the same of, one command is for."""
    return container.compose_project, container.compose_paths


def _up(containers: Sequence[Container], *options: str) -> list[str]:
    """Bring up what Compose started, with one command for what it started from the same files."""
    groups: dict[_Files, list[Container]] = {}
    for each in containers:
        groups.setdefault(_files(each), []).append(each)
    return [
        compose(
            group[0],
            *("up", "-d", "--no-deps", *options),
            *dict.fromkeys(each.compose_service for each in group),
        )
        for group in groups.values()
    ]


# ---------------------------------------------------------------- containers


def start(container: Container) -> str:
    """Start a container that stopped."""
    if container.compose_service:
        return _up((container,))[0]
    return quoted("docker", "start", container.name)


def restart(container: Container) -> str:
    """Restart a container as it is."""
    return quoted("docker", "restart", container.name)


def resume_all(containers: Sequence[Container]) -> tuple[str, ...]:
    """Make several run, with one command for what one Compose file started."""
    composed: list[Container] = []
    commands: list[str] = []
    for each in containers:
        if each.compose_service and each.status not in ("paused", "restarting"):
            composed.append(each)
        else:
            commands.extend(resume(each))
    return (*commands, *_up(composed))


def resume(container: Container) -> tuple[str, ...]:
    """Make a container run that does not; () where Docker itself starts it again and again."""
    match container.status:
        case "paused":
            return (quoted("docker", "unpause", container.name),)
        case "restarting":
            return ()
        case _:
            return (start(container),)


def recreate(containers: Sequence[Container]) -> tuple[str, ...]:
    """Replace Compose's containers by new ones of the same settings, one command a project.

    What Compose did not start is only restarted: nobody else knows how it was run.
    """
    composed = [each for each in containers if each.compose_service]
    others = [each for each in containers if not each.compose_service]
    return (*_up(composed, "--force-recreate"), *(restart(each) for each in others))


def recreate_with_sidecars(workloads: Iterable[Workload]) -> tuple[str, ...]:
    """Replace applications, then what sits in their network namespaces, in the order it needs.

    A new application container has a new namespace: the redirect must be installed in it again,
    and the sidecar must join it. Only of applications that Compose started: of another, nobody
    knows how it was run.
    """
    composed = [
        each for each in workloads if each.container is not None and each.container.compose_service
    ]
    applications = [each.container for each in composed if each.container is not None]
    inits = [init for each in composed for init in each.inits]
    sidecars = [
        sidecar.container
        for each in composed
        for sidecar in each.sidecars
        if sidecar.container is not None
    ]
    redirects = [
        install_redirect(each.container.name)
        for each in composed
        if each.container is not None and each.sidecars and not each.inits
    ]
    return (*recreate(applications), *recreate(inits), *redirects, *recreate(sidecars))


def rejoin(guests: Sequence[tuple[Container, str]]) -> tuple[str, ...]:
    """Replace containers that sit in a namespace that is gone: (container, its application).

    Docker wrote the id of the old application into them, so a restart would not do.
    """
    composed = [container for container, _ in guests if container.compose_service]
    others = [each for each in guests if not each[0].compose_service]
    return (
        *recreate(composed),
        *(
            command
            for container, application in others
            for command in (
                quoted("docker", "rm", "-f", container.name),
                run_again(container, container.image, network=f"container:{application}"),
            )
        ),
    )


def install_redirect(application: str) -> str:
    """Write the nat rules into the namespace of an application that has no init container."""
    return quoted(
        *("docker", "run", "--rm", "--cap-add", "NET_ADMIN"),
        *("--network", f"container:{application}", _REDIRECT_IMAGE, *_REDIRECT),
    )


def run_again(container: Container, image: str, *, network: str = "") -> str:
    """`docker run` with the settings of a container that Compose did not start.

    A host name that was given by hand is given again; one that Docker chose is not. Docker joins
    the entry point and its arguments into one command: which words of it were the image's own
    nobody can tell, so the program is named and all the rest follows.
    """
    network = network or container.network_mode
    program, *arguments = container.command or ("",)
    options = {
        "--network": [network] if network not in ("", "default", "bridge") else [],
        "--hostname": [container.hostname] if _names_its_host(container) else [],
        "--cap-add": list(container.capabilities),
        "--user": [container.user] if container.user else [],
        "-v": list(container.binds),
        "-p": [
            f"{'' if each.host_address in EVERYWHERE else f'{each.host_address}:'}"
            f"{each.host_port}:{each.port}/{each.protocol}"
            for each in container.published
        ],
        # The image brings its own PATH.
        "-e": [f"{key}={value}" for key, value in container.environment.items() if key != "PATH"],
        "--entrypoint": [program] if program else [],
    }
    words = [
        word for option, values in options.items() for each in values for word in (option, each)
    ]
    privileged = ("--privileged",) if container.privileged else ()
    named = ("docker", "run", "-d", "--name", container.name)
    return quoted(*named, *privileged, *words, image, *arguments)


def _names_its_host(container: Container) -> bool:
    shares = container.network_mode == "host" or bool(container.network_container)
    return has_own_hostname(container) and not shares


def has_own_hostname(container: Container) -> bool:
    """True where a new container of the same settings has the same host name.

    Docker names a container's host after its id unless it is told a name, or the container is in
    the host's own network.
    """
    return bool(container.hostname) and not container.id.startswith(container.hostname)


def logs(container: Container) -> str:
    """Show the last lines a container wrote."""
    return quoted("docker", "logs", "--tail", "50", container.name)


# ---------------------------------------------------------------- Consul, files, meshdoctor


def consul_url(mesh: Mesh) -> str | None:
    """Consul's HTTP API as this host reaches it, None where it is not published."""
    consul = mesh.component(Role.CONSUL)
    if consul is None or consul.container.network_mode == "host":
        return f"http://127.0.0.1:{CONSUL_PORT}"
    for each in consul.container.published:
        if (each.port, each.protocol) == (CONSUL_PORT, "tcp"):
            return f"http://{each.local_address}:{each.host_port}"
    return None


def deregister(mesh: Mesh, ids: Sequence[str]) -> tuple[str, ...]:
    """Take instances out of Consul's catalogue, through the agent that holds them."""
    url = consul_url(mesh)
    if url is not None:
        path = f"{url}/v1/agent/service/deregister"
        # Encoded, no id can hold the braces and commas by which curl takes several at once.
        encoded = [quote(each, safe=":~") for each in ids]
        several = [f"{{{','.join(encoded)}}}"] if len(encoded) > 1 else encoded
        return tuple(quoted("curl", "-fsS", "-X", "PUT", f"{path}/{each}") for each in several)
    return tuple(_in_consul(mesh, "services", "deregister", f"-id={each}") for each in ids)


def force_leave(mesh: Mesh, node: str) -> str:
    """Take a node whose agent is gone out of Consul."""
    if mesh.component(Role.CONSUL) is None:
        return quoted("consul", "force-leave", node)
    return _in_consul(mesh, "force-leave", node)


def register(mesh: Mesh, instance: Instance, meta: Mapping[str, str]) -> str:
    """Write an instance into Consul again, as it stands there but with this metadata."""
    url = consul_url(mesh)
    if url is not None:
        body = {
            "ID": instance.id,
            "Name": instance.service,
            "Address": instance.registered,
            "Port": instance.port,
            "Tags": list(instance.tags),
            "Meta": dict(meta),
        }
        import json  # noqa: PLC0415

        data = json.dumps(body, separators=(",", ":"))
        return quoted("curl", "-fsS", "-X", "PUT", "-d", data, f"{url}/v1/agent/service/register")
    return _in_consul(
        mesh,
        *("services", "register", f"-id={instance.id}", f"-name={instance.service}"),
        *(f"-address={instance.registered}", f"-port={instance.port}"),
        *(f"-tag={tag}" for tag in instance.tags),
        *(f"-meta={name}={value}" for name, value in sorted(meta.items())),
    )


def _in_consul(mesh: Mesh, *words: str) -> str:
    """Consul's own program in its container, for where nothing of it is published."""
    consul = mesh.component(Role.CONSUL)
    name = consul.name if consul is not None else "consul"
    return quoted("docker", "exec", name, "consul", *words)


def replace_in_file(old: str, new: str, files: Sequence[str]) -> str:
    """Change an image in the Compose files, in place, keeping a copy beside each."""
    pattern = re.sub(r"([][\\.*^$#+?(){}|])", r"\\\1", old)
    # What follows an image's name must not go on with it, so that running it twice does no harm.
    return quoted("sed", "-E", "-i.before", f"s#{pattern}([^-._:/@A-Za-z0-9]|$)#{new}\\1#", *files)


def see_that_it_worked(*codes: str) -> str:
    """The last step of every remedy."""
    return quoted("meshdoctor", "check", "--select", ",".join(codes))


_ON_HOST: Final = r"(?a)((?:container:)?[A-Za-z0-9][\w.-]*)@([\w.:/-]+)"
"""A container of a name that several hosts have; whatever else a host may be called is no word."""


def quoted(*words: str) -> str:
    """One command of these words, quoted for a shell.

    Docker knows a container by the name it has on its own host, which a comment tells where
    several hosts have that name.
    """
    hosts: dict[str, None] = {}
    known = []
    for before, word in zip(("", *words), words, strict=False):
        found = re.fullmatch(_ON_HOST, word) if _names_a_container(words, before, word) else None
        if found is not None:
            hosts[found[2]] = None
        known.append(word if found is None else found[1])
    command = shlex.join(known)
    return f"{command}  # on {', '.join(hosts)}" if hosts else command


def _names_a_container(words: Sequence[str], before: str, word: str) -> bool:
    """Whether the word may be a container's name: what `docker run` starts may take any words."""
    if words[0] != "docker":
        return False
    return words[1:2] != ("run",) or before == "--name" or word.startswith("container:")
