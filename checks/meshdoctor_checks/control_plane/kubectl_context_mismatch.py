"""MD106: kubectl talks to another API server than the mesh's."""

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from meshdoctor.check import CannotLookError, check
from meshdoctor.evidence.docker import Container, DockerEngine
from meshdoctor.evidence.kube import CONFIG, KubeConfig
from meshdoctor.findings import Citation, Fact, Finding, Remedy, Severity, SubjectKind, subjects
from meshdoctor.kinds import Kind
from meshdoctor.topology import Mesh, Role
from meshdoctor_checks import commands, proofs

_PORTS: Final = (8080, 6443)
"""kube-apiserver's plain port, which Istio's Compose file uses, and its usual secure one."""
_SECURE: Final = frozenset({443, 6443})
_WITHOUT_CONTEXT: Final = "http://localhost:8080"
"""Where kubectl goes when no context is in use."""
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "host.docker.internal"})  # noqa: S104 # compared with


@check(code="MD106", severity=Severity.WARNING, since="0.1", kinds=(Kind.ISTIO_CONSUL,))
def kubectl_context_mismatch(
    mesh: Mesh, docker: DockerEngine, kube: KubeConfig | None
) -> Iterator[Finding | Fact]:
    """The context that kubectl uses points elsewhere than at the mesh's API server.

    ## Why it matters

    The mesh's rules live in an API server of its own. With another context in use,
    `kubectl apply` puts a VirtualService into some other cluster: it succeeds, and nothing
    happens here.

    ## How it is found

    The server of the current context is compared with where Docker publishes port 8080 or 6443 of
    the API server's container. Only addresses of this host and of the container itself count as
    the mesh's; another host with the same port may be this one under another name and is not
    judged. Without a current context kubectl goes to localhost:8080.

    ## How to fix it

    Use a context of the mesh's API server, or name it with `kubectl --context`.
    """
    server = mesh.component(Role.API_SERVER)
    if server is None:
        raise CannotLookError("no container of an API server is seen in Docker")
    container = server.container
    if not _is_of_this_mesh(container, mesh):
        raise CannotLookError(f"{container.name} shares no network with the rest of the mesh")
    if not container.running:
        raise CannotLookError(f"the API server ({container.name}) does not run")
    if kube is None:
        raise CannotLookError("no kubeconfig could be read", KubeConfig.hint)
    places = tuple(_places(container))
    if not places:
        raise CannotLookError(f"Docker shows no address of the API server ({container.name})")
    url = kube.contexts.get(kube.current, "") if kube.current else _WITHOUT_CONTEXT
    verdict = _is_there(url, places)
    if verdict is None:
        raise CannotLookError(f"whether {url} is this host, nobody can tell from here")
    called = f'context "{kube.current}"' if kube.current else "default"
    if verdict:
        yield Fact(f"kubectl's {called} points at the mesh's API server")
        return
    where = url or "no server"
    host, port = places[0]
    yield Finding(
        message=(
            f"kubectl's {called} points at {where}, and the mesh's API server "
            f"({container.name}) is at {host}:{port}: rules applied with it go elsewhere."
        ),
        subjects=subjects(SubjectKind.COMPONENT, (container.name,)),
        seen_in=(
            Citation(CONFIG, "", proofs.shorten(f"{kube.current or 'no context'}: {where}")),
            proofs.container(container, "/NetworkSettings/Ports", f"{host}:{port}"),
        ),
        remedies=(_remedy(kube, places),),
    )


def _is_of_this_mesh(server: Container, mesh: Mesh) -> bool:
    """Other software on the same Docker may have an API server of its own."""
    networks = {
        network
        for each in mesh.components
        if each.role in (Role.CONSUL, Role.PILOT, Role.REGISTRATOR)
        for network in (each.container.network_mode, *each.container.aliases)
    }
    return bool(networks & {server.network_mode, *server.aliases})


def _places(container: Container) -> Iterator[tuple[str, int]]:
    """Host and port of its API: what is published first, then its own addresses."""
    for each in container.published:
        if each.port in _PORTS and each.protocol == "tcp":
            yield each.local_address, each.host_port
    if container.network_mode == "host":
        yield from (("127.0.0.1", port) for port in _PORTS)
    for address in container.addresses.values():
        yield from ((address, port) for port in _PORTS)


def _is_there(url: str, places: tuple[tuple[str, int], ...]) -> bool | None:
    """Whether a URL leads to one of the places, None where that cannot be told."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return False
    if not host:
        return False
    for place, number in places:
        if port != number:
            continue
        if host == place or (host in _LOCAL and place in _LOCAL):
            return True
    known = host in _LOCAL or host in {place for place, _ in places}
    if not known and any(port == number for _, number in places):
        return None
    return False


def _remedy(kube: KubeConfig, places: tuple[tuple[str, int], ...]) -> Remedy:
    check_again = commands.see_that_it_worked("MD106")
    for name, url in kube.contexts.items():
        if url and _is_there(url, places):
            return Remedy(
                summary=f'Use the context "{name}", which is the mesh\'s.',
                commands=(commands.quoted("kubectl", "config", "use-context", name), check_again),
                effect="Every later kubectl command goes to the mesh.",
            )
    host, port = places[0]
    scheme = "https" if port in _SECURE else "http"
    return Remedy(
        summary="Make a context for the mesh's API server, and use it.",
        commands=(
            commands.quoted(
                *("kubectl", "config", "set-cluster", "istio"),
                f"--server={scheme}://{host}:{port}",
            ),
            commands.quoted("kubectl", "config", "set-context", "istio", "--cluster=istio"),
            commands.quoted("kubectl", "config", "use-context", "istio"),
            check_again,
        ),
        effect=(
            "Every later kubectl command goes to the mesh; the context that was in use stays in "
            "the file."
        ),
    )
