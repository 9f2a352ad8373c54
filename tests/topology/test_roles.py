"""What a container is for, by its image and its command."""

import pytest

from meshdoctor.topology.roles import Role, installs_redirect, role_of, runs_envoy
from tests.topology.containers import container

SHARED = "container:" + "web".ljust(64, "0")


@pytest.mark.parametrize(
    ("image", "command", "role"),
    [
        ("consul:1.3.0", ("consul", "agent", "-dev"), Role.CONSUL),
        ("hashicorp/consul:1.21", ("docker-entrypoint.sh", "agent", "-server"), Role.CONSUL),
        ("own/image", ("sh", "-c", "exec consul agent -dev"), Role.CONSUL),
        ("gliderlabs/registrator:latest", ("/bin/registrator", "-internal"), Role.REGISTRATOR),
        ("own/image", ("/usr/bin/registrator", "consul://c:8500"), Role.REGISTRATOR),
        ("istio/pilot:1.1.0", ("/usr/local/bin/pilot-discovery", "discovery"), Role.PILOT),
        ("quay.io/coreos/etcd:latest", ("etcd", "-advertise-client-urls"), Role.ETCD),
        ("gcr.io/x/kube-apiserver-amd64:v1.7.3", ("kube-apiserver",), Role.API_SERVER),
        ("gcr.io/x/hyperkube:v1.7.6", ("/hyperkube", "apiserver"), Role.API_SERVER),
        ("openzipkin/zipkin:2.7", ("/bin/sh", "-c", "java ..."), Role.TRACING),
        ("istio/examples-bookinfo-details-v1:1.10.1", ("ruby", "details.rb"), None),
        ("own/consul-template", ("consul-template", "-config"), None),
        ("istio/proxy_debug:1.1.0", ("pilot-agent", "proxy"), None),
        ("", (), None),
    ],
)
def test_the_part_of_a_control_plane(
    image: str, command: tuple[str, ...], role: Role | None
) -> None:
    """Names of containers do not count: this one is always called pilot."""
    assert role_of(container("pilot", image=image, command=command)) is role


@pytest.mark.parametrize(
    ("image", "command", "network", "envoy"),
    [
        ("istio/proxy_debug:1.1.0", ("su", "istio-proxy", "-c", "exec envoy -c x"), SHARED, True),
        ("istio/proxyv2:1.4", ("pilot-agent", "proxy"), "mesh", True),
        ("envoyproxy/envoy:v1.40", (), "mesh", True),
        ("own/image", ("/usr/local/bin/envoy", "-c", "/e.json"), SHARED, True),
        ("own/image", ("sh", "-c", "consul connect envoy -sidecar-for web"), SHARED, True),
        ("hashicorp/consul-dataplane:1.3", (), SHARED, True),
        ("own/image", ("python", "envoy_client.py"), SHARED, False),
        ("istio/proxy_init:1.1.0", ("-p", "15001"), SHARED, False),
    ],
)
def test_what_runs_envoy(
    image: str, command: tuple[str, ...], network: str, *, envoy: bool
) -> None:
    """By the image or by a word of the command, as a program's name."""
    assert runs_envoy(container("web", image=image, command=command, network=network)) is envoy


@pytest.mark.parametrize(
    ("image", "command", "network", "installs"),
    [
        ("istio/proxy_init:1.1.0", ("/usr/local/bin/istio-iptables.sh", "-p"), SHARED, True),
        ("own/image", ("sh", "-c", "iptables -t nat -A OUTPUT"), SHARED, True),
        ("istio/proxyv2:1.4", ("istio-iptables", "-p", "15001"), SHARED, True),
        ("istio/proxy_init:1.1.0", ("/usr/local/bin/istio-iptables.sh",), "mesh", False),
        ("istio/proxyv2:1.4", ("pilot-agent", "proxy"), SHARED, False),
    ],
)
def test_what_installs_the_redirect(
    image: str, command: tuple[str, ...], network: str, *, installs: bool
) -> None:
    """Only in another's namespace; the image of a sidecar may be the one that does it."""
    given = container("web", image=image, command=command, network=network)
    assert installs_redirect(given) is installs
    assert not (installs and runs_envoy(given))
