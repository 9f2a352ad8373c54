"""Istio's rules from a real kube-apiserver with real custom resources, over TLS.

One that is built already, which takes minutes: where none is, these tests are skipped, but not in
CI, whose script builds it.
Its plain port, which the API server of Istio's day had, went with Kubernetes 1.20.
"""

import json
import os
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from meshdoctor.collectors import Options, collect
from meshdoctor.evidence.istio import DESTINATION_RULES, VIRTUAL_SERVICES, IstioRules
from meshdoctor.snapshot import Snapshot
from tests.live.go_programs import NoProgramError, etcd, kube_apiserver

TOKEN: Final = "pl4nted-t0ken"  # noqa: S105 # of nothing
POWERLESS: Final = "0ther-t0ken"
GROUP: Final = "networking.istio.io"
KINDS: Final = {"virtualservices": "VirtualService", "destinationrules": "DestinationRule"}
NOWHERE: Final = {"DOCKER_HOST": "unix:///nonexistent/docker.sock"}
PATIENCE: Final = 60


@dataclass
class ApiServer:
    """The server while it runs. `folder` has its certificates and what it wrote."""

    folder: Path
    url: str

    def ask(self, path: str, body: object = None, method: str = "POST") -> Any:
        request = urllib.request.Request(  # noqa: S310 # of this test's own server
            f"{self.url}{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"},
            method="GET" if body is None else method,
        )
        context = ssl.create_default_context(cafile=str(self.authority))
        with urllib.request.urlopen(request, context=context, timeout=10) as answer:  # noqa: S310 # likewise
            return json.load(answer)

    @property
    def authority(self) -> Path:
        return self.folder / "certificates" / "apiserver.crt"

    def kubeconfig(self, **user: Any) -> Path:
        path = self.folder / "kubeconfig"
        config = {
            "current-context": "mesh",
            "contexts": [{"name": "mesh", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [
                {
                    "name": "here",
                    "cluster": {
                        "server": self.url,
                        "certificate-authority": str(self.authority),
                    },
                }
            ],
            "users": [{"name": "me", "user": user}],
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        return path

    def collected(self, **user: Any) -> Snapshot:
        options = Options(
            environment=NOWHERE, consul="127.0.0.1:9", kubeconfig=self.kubeconfig(**user)
        )
        return collect(options, lambda _message: None)


def definition(plural: str, versions: Mapping[str, bool]) -> Mapping[str, Any]:
    """A CustomResourceDefinition; of its versions those that are served."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": KINDS[plural]},
            "versions": [
                {
                    "name": name,
                    "served": served,
                    "storage": name == "v1alpha3",
                    "schema": {"openAPIV3Schema": schema},
                }
                for name, served in versions.items()
            ],
        },
    }


RULES: Final = {
    "virtualservices": {
        "hosts": ["reviews.service.consul"],
        "http": [{"route": [{"destination": {"host": "reviews.service.consul", "subset": "v2"}}]}],
    },
    "destinationrules": {
        "host": "reviews.service.consul",
        "subsets": [{"name": "v1", "labels": {"version": "v1"}}],
    },
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def eventually(question: Any) -> Any:
    """What it answers once it answers at all."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if answer := question():
                return answer
        except (OSError, urllib.error.URLError):
            pass
        assert time.monotonic() < end, "the API server did not come up"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An API server with nobody's rules yet, which knows a token and a certificate authority."""
    try:
        programs = etcd(), kube_apiserver()
    except NoProgramError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("kubernetes")
    (folder / "tokens.csv").write_text(
        f"{TOKEN},admin,1,system:masters\n{POWERLESS},nobody,2\n", encoding="utf-8"
    )
    authority(folder)
    stored, peers, port = (free_port() for _ in range(3))
    server = ApiServer(folder, f"https://127.0.0.1:{port}")
    with ExitStack() as stack:
        stored_at, peers_at = (f"http://127.0.0.1:{each}" for each in (stored, peers))
        start(
            *(stack, folder, programs[0], "--data-dir", folder / "data"),
            *("--listen-client-urls", stored_at, "--advertise-client-urls", stored_at),
            *("--listen-peer-urls", peers_at, "--initial-advertise-peer-urls", peers_at),
            *("--initial-cluster", f"default={peers_at}"),
        )
        start(
            *(stack, folder, programs[1], "--etcd-servers", stored_at),
            *("--bind-address", "127.0.0.1", "--secure-port", port),
            *("--cert-dir", folder / "certificates", "--client-ca-file", folder / "ca.crt"),
            *("--token-auth-file", folder / "tokens.csv", "--authorization-mode", "RBAC"),
            *("--service-cluster-ip-range", "10.96.0.0/24"),
            *("--service-account-issuer", "https://mesh", "--disable-admission-plugins"),
            *("ServiceAccount", "--service-account-key-file", folder / "ca.key"),
            *("--service-account-signing-key-file", folder / "ca.key"),
        )
        eventually(lambda: server.ask("/api/v1/namespaces/default"))
        yield server


def start(stack: ExitStack, folder: Path, program: Path, *arguments: object) -> None:
    """Run it until the stack ends; what it says goes into a file."""
    log = stack.enter_context((folder / f"{program.name}.log").open("wb"))
    running = subprocess.Popen([program, *map(str, arguments)], stdout=log, stderr=log)
    stack.callback(running.wait)
    stack.callback(running.kill)


def authority(folder: Path) -> None:
    """An authority, and a certificate of its for a user of the group that may do all."""
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "client")}
    subjects = {
        "ca": x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")]),
        "client": x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "system:masters"),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, "me"),
            ]
        ),
    }
    now = datetime.now(UTC)
    for name, key in keys.items():
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subjects[name])
            .issuer_name(subjects["ca"])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
            )
            .sign(keys["ca"], hashes.SHA256())
        )
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )


@pytest.fixture(scope="module")
def ruled(server: ApiServer) -> ApiServer:
    """The same server once Pilot would have registered its resources, with one rule of each."""
    for plural, spec in RULES.items():
        versions = {"v1alpha3": True, "v1beta1": True, "v1": True}
        server.ask(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(plural, versions)
        )
        path = f"/apis/{GROUP}/v1alpha3/namespaces/default/{plural}"
        eventually(lambda path=path: server.ask(path))
        server.ask(
            path,
            {
                "apiVersion": f"{GROUP}/v1alpha3",
                "kind": KINDS[plural],
                "metadata": {"name": "reviews", "annotations": {"note": "hunter2"}},
                "spec": spec,
            },
        )
    return server


def reason(snapshot: Snapshot, document: str = VIRTUAL_SERVICES) -> str:
    (said,) = [each.message for each in snapshot.absent if each.document == document]
    return said


def certificate(server: ApiServer) -> Mapping[str, str]:
    return {
        "client-certificate": str(server.folder / "client.crt"),
        "client-key": str(server.folder / "client.key"),
    }


# The first one meets the server as it is before Pilot was there.


def test_before_pilot_ran_it_knows_no_rules(server: ApiServer) -> None:
    """Its 404 is that of the page, and it is said whose business that is."""
    assert "Pilot registers them when it starts" in reason(server.collected(token=TOKEN))


@pytest.mark.parametrize("by", ["token", "certificate"])
def test_rules_are_read(ruled: ApiServer, by: str) -> None:
    """By a token as by a client certificate; the server's own certificate is verified."""
    user = {"token": TOKEN} if by == "token" else certificate(ruled)
    snapshot = ruled.collected(**user)
    rules = IstioRules.load(snapshot)
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.name for each in rules.destination_rules] == ["reviews"]
    assert not rules.problems
    for document in (VIRTUAL_SERVICES, DESTINATION_RULES):
        assert b"hunter2" not in snapshot.read(document)
        assert TOKEN.encode() not in snapshot.read(document)


@pytest.mark.parametrize(("token", "status"), [("wr0ng", "401"), (POWERLESS, "403")])
def test_who_may_not_read_is_told_what_helps(ruled: ApiServer, token: str, status: str) -> None:
    """A token it does not know, and one whose owner has no right to the rules."""
    said = reason(ruled.collected(token=token))
    assert status in said
    assert "--kubeconfig" in said
    assert token not in said


def test_a_server_of_another_authority_is_not_trusted(ruled: ApiServer) -> None:
    """No token is sent to it."""
    path = ruled.kubeconfig(token=TOKEN)
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["clusters"][0]["cluster"]["certificate-authority"] = str(ruled.folder / "ca.crt")
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    options = Options(environment=NOWHERE, consul="127.0.0.1:9", kubeconfig=path)
    said = reason(collect(options, lambda _message: None))
    assert "certificate" in said.lower()


def test_a_newer_server_serves_a_newer_version(ruled: ApiServer) -> None:
    """The first version that is served is read, with the same rules in it."""
    for plural in RULES:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.{GROUP}"
        there = ruled.ask(path)
        for version in there["spec"]["versions"]:
            version["served"] = version["name"] != "v1alpha3"
        ruled.ask(path, there, "PUT")

    def is_settled(plural: str) -> bool:
        """Until then the server answers 429 to some: it puts another storage in place."""
        try:
            ruled.ask(f"/apis/{GROUP}/v1alpha3/{plural}")
        except urllib.error.HTTPError as error:
            return error.code == 404 and bool(ruled.ask(f"/apis/{GROUP}/v1beta1/{plural}"))
        return False

    for plural in RULES:
        eventually(partial(is_settled, plural))
    rules = IstioRules.load(ruled.collected(token=TOKEN))
    assert [each.name for each in rules.virtual_services] == ["reviews"]
    assert [each.name for each in rules.destination_rules] == ["reviews"]
