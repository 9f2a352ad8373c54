"""The table: each fault, how it is put in, what meshdoctor must say of it, how it is mended."""

import json
import re
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.live.lab.lab import CONSUL, PROJECT, Lab

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """One row.

    `root` is the code of the diagnosis, or the codes of several. `findings` are all codes of
    errors and warnings that must be there, `perhaps` those that depend on luck: on which service
    of a port comes first. A remedy is run as it is printed; `by_hand` does what its words ask a
    person to do before, and `why` says why no command does it.
    """

    name: str
    root: tuple[str, ...]
    put_in: Callable[[Lab], None]
    findings: frozenset[str] = frozenset()
    perhaps: frozenset[str] = frozenset()
    by_hand: Callable[[Lab], None] | None = None
    why: str = ""
    rounds: int = 1
    """How often remedies are read and run until all is well."""
    anew: bool = False
    """The mesh is brought up from nothing afterwards: no printed command can mend it."""
    tidy: Callable[[Lab], None] | None = None
    """What takes away afterwards what is in order now but was not there before."""
    leaves: frozenset[str] = frozenset()
    """Codes of remarks that are true until then, and no part of the fault."""
    unseen: str = ""
    """Where nothing can be diagnosed, for a source tells nothing: what is said of that."""

    @property
    def expected(self) -> frozenset[str]:
        return self.findings | frozenset(self.root)


# ---------------------------------------------------------------- ways to break


def edit(lab: Lab, file: str | Path, service: str, old: str, new: str) -> None:
    """Change one service in a Compose file."""
    path = lab.folder / file
    text = path.read_text()
    start = text.index(f"  {service}:\n")
    end = next(iter(re.finditer(r"\n  \S|\n\S", text[start + 3 :])), None)
    stop = len(text) if end is None else start + 3 + end.start()
    section = text[start:stop]
    assert old in section, (service, old)
    path.write_text(text[:start] + section.replace(old, new, 1) + text[stop:])


def application(name: str, old: str, new: str) -> Callable[[Lab], None]:
    """An application with other settings, and everything that sits in its namespace anew."""

    def put_in(lab: Lab) -> None:
        edit(lab, lab.file(name), name, old, new)
        lab.renew(name)

    return put_in


def component(name: str, old: str, new: str) -> Callable[[Lab], None]:
    """A part of the control plane with other settings."""

    def put_in(lab: Lab) -> None:
        edit(lab, lab.file(name), name, old, new)
        lab.recreate(name)

    return put_in


def sidecar(name: str, old: str, new: str) -> Callable[[Lab], None]:
    """A sidecar with other settings."""

    def put_in(lab: Lab) -> None:
        edit(lab, lab.file(f"{name}-sidecar"), f"{name}-sidecar", old, new)
        lab.recreate(f"{name}-sidecar")

    return put_in


def edited(name: str, old: str, new: str) -> Callable[[Lab], None]:
    """Settings changed in their file alone: the next command recreates what has them."""

    def change(lab: Lab) -> None:
        edit(lab, lab.file(name), name, old, new)

    return change


def docker(*command: str) -> Callable[[Lab], None]:
    """A command of Docker's."""

    def put_in(lab: Lab) -> None:
        lab.docker(*command)

    return put_in


def rules(*documents: str) -> Callable[[Lab], None]:
    """Istio rules, written into the API server."""

    def put_in(lab: Lab) -> None:
        for each in documents:
            lab.apply(each)

    return put_in


def both(*ways: Callable[[Lab], None]) -> Callable[[Lab], None]:
    """One after another."""

    def put_in(lab: Lab) -> None:
        for each in ways:
            each(lab)

    return put_in


def consul(method: str, path: str, body: object = None) -> Any:
    """Ask the lab's Consul."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{CONSUL}{path}", data=data, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 # the lab's own
        held = answer.read()
    return json.loads(held) if held.strip() else None


def registered(service: str) -> list[Any]:
    """What Consul's catalogue has of a service."""
    found: list[Any] = consul("GET", f"/v1/catalog/service/{service}")
    return found


def forget(*services: str) -> None:
    """Take all instances of these out of Consul, behind Registrator's back."""
    for service in services:
        for each in registered(service):
            consul("PUT", f"/v1/agent/service/deregister/{each['ServiceID']}")


def register(id_: str, service: str, address: str, version: str) -> Callable[[Lab], None]:
    """One more instance, as nobody's container has it."""

    def put_in(_lab: Lab) -> None:
        consul(
            "PUT",
            "/v1/agent/service/register",
            {
                "ID": id_,
                "Name": service,
                "Address": address,
                "Port": 9080,
                "Tags": [f"version|{version}"],
                "Meta": {"protocol": "http"},
            },
        )

    return put_in


def _registrator_from(tag: str) -> Callable[[Lab], None]:
    """Registrator by another tag, as if it had been there from the beginning."""

    def put_in(lab: Lab) -> None:
        old = [each for name in consul("GET", "/v1/catalog/services") for each in registered(name)]
        component("registrator", ":master", f":{tag}")(lab)
        lab.until("the new Registrator", lambda: len(registered("reviews")) > 3)
        for each in old:
            if each["ServiceName"] != "consul":
                consul("PUT", f"/v1/agent/service/deregister/{each['ServiceID']}")

    return put_in


def _missed(lab: Lab) -> None:
    lab.docker("stop", "-t", "1", lab.container("registrator"))
    lab.renew("ratings-v1")


def _race(lab: Lab) -> None:
    """Pilot looked for an API server that was not there yet."""
    lab.docker("stop", "-t", "1", lab.container("istio-apiserver"))
    lab.docker("restart", "-t", "1", lab.container("pilot"))
    lab.until("Pilot to give up", lambda: not lab.running("pilot"))
    lab.docker("start", lab.container("istio-apiserver"))


def _no_api_server(lab: Lab) -> None:
    lab.docker("stop", "-t", "1", lab.container("istio-apiserver"))
    lab.docker("restart", "-t", "1", lab.container("pilot"))
    lab.until("Pilot to give up", lambda: not lab.running("pilot"))


def in_namespace(application: str, script: str) -> Callable[[Lab], None]:
    """A script with the rights of an init container, in an application's namespace."""

    def put_in(lab: Lab) -> None:
        lab.docker(
            *("run", "--rm", "--cap-add", "NET_ADMIN"),
            *("--network", f"container:{lab.container(application)}", "--entrypoint", "/bin/sh"),
            *("istio/proxy_init:0.7.1", "-c", script),
        )

    return put_in


def _without_init(lab: Lab) -> None:
    lab.docker("rm", "-f", lab.container("ratings-v1-init"))
    lab.recreate("ratings-v1")
    lab.recreate("ratings-v1-sidecar")


def _gateway_elsewhere(lab: Lab) -> None:
    """Consul's DNS where no container reaches it; unset, it would be at every address."""
    env = lab.folder / "install/consul/.env"
    text = env.read_text()
    env.write_text(text.replace("DOCKER_GATEWAY=172.28.0.1:", "DOCKER_GATEWAY=127.0.0.1:"))
    lab.recreate("consul")
    lab.docker("restart", "-t", "1", lab.container("registrator"))


def _gateway_set(lab: Lab) -> None:
    env = lab.folder / "install/consul/.env"
    env.write_text(
        env.read_text().replace("DOCKER_GATEWAY=127.0.0.1:", "DOCKER_GATEWAY=172.28.0.1:")
    )


def _stale(lab: Lab) -> None:
    """Registrator missed that a container died: its registration stays, under its host name."""
    host = lab.docker("exec", lab.container("registrator"), "hostname").strip()
    register(f"{host}:consul_reviews-v9_1:9080", "reviews", "172.28.99.99", "v1")(lab)


_ELSEWHERE: Final = """version: "2"
services:
  archive:
    image: istio/examples-bookinfo-reviews-v1:1.10.1
    network_mode: bridge
    environment: [SERVICE_NAME=archive, SERVICE_PROTOCOL=http]
    expose: ["9080"]
"""


def _off_the_mesh(lab: Lab) -> None:
    """A service on Docker's own network, where no member of the mesh's network gets."""
    file = lab.folder / "bookinfo/archive.yaml"
    file.write_text(_ELSEWHERE)
    lab.compose(file, "up", "-d")


def _no_archive(lab: Lab) -> None:
    lab.docker("rm", "-f", lab.container("archive"))


def _new_registrator(lab: Lab) -> None:
    before = sum(len(registered(name)) for name in consul("GET", "/v1/catalog/services"))

    def all_twice() -> bool:
        now = sum(len(registered(name)) for name in consul("GET", "/v1/catalog/services"))
        # Consul's own registration stands once.
        return now == before * 2 - 1

    lab.recreate("registrator")
    lab.until("all to be registered again", all_twice)


def _other_address(lab: Lab) -> None:
    address = lab.address("ratings-v1")
    edit(
        lab,
        lab.file("details-v1-sidecar"),
        "details-v1-sidecar",
        "    entrypoint:",
        f"    environment: [INSTANCE_IP={address}]\n    entrypoint:",
    )
    lab.recreate("details-v1-sidecar")


def _own_address(lab: Lab) -> None:
    """What `_other_address` wrote is taken out of the file."""
    path = lab.file("details-v1-sidecar")
    path.write_text(re.sub(r"    environment: \[INSTANCE_IP=.*\n", "", path.read_text()))


_DATABASES: Final = """version: "2"
services:
  mongodb:
    image: istio/examples-bookinfo-ratings-v1:1.10.1
    networks: [consul_istiomesh]
    environment: [SERVICE_NAME=mongodb, SERVICE_PROTOCOL=mongo, LAB_PORTS=27017,
                  SERVICE_9080_IGNORE=1]
    expose: ["27017"]
  mysqldb:
    image: istio/examples-bookinfo-details-v1:1.10.1
    networks: [consul_istiomesh]
    environment: [SERVICE_NAME=mysqldb, SERVICE_PROTOCOL=mysql, LAB_PORTS=27017,
                  SERVICE_9080_IGNORE=1]
    expose: ["27017"]
networks:
  consul_istiomesh:
    external: true
"""


def _databases(lab: Lab) -> None:
    file = lab.folder / "bookinfo/databases.yaml"
    file.write_text(_DATABASES)
    lab.compose(file, "up", "-d")


def _no_databases(lab: Lab) -> None:
    for each in ("mongodb", "mysqldb"):
        lab.docker("rm", "-f", lab.container(each))


# ---------------------------------------------------------------- rules


def virtual_service(name: str, http: str, hosts: str = "reviews.service.consul") -> str:
    """YAML of one; `http` is the list in YAML's short form."""
    return f"""apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata: {{name: {name}, namespace: default}}
spec: {{hosts: [{hosts}], http: {http}}}
"""


def destination_rule(name: str, subsets: str, host: str = "reviews.service.consul") -> str:
    """YAML of one."""
    return f"""apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata: {{name: {name}, namespace: default}}
spec: {{host: {host}, subsets: {subsets}}}
"""


def to(subset: str, weight: int | None = None) -> str:
    """A route's target."""
    weighted = "" if weight is None else f", weight: {weight}"
    return f"{{destination: {{host: reviews.service.consul, subset: {subset}}}{weighted}}}"


def versions(*names: str) -> str:
    """Subsets by the label `version`."""
    return "[" + ", ".join(f"{{name: {v}, labels: {{version: {v}}}}}" for v in names) + "]"


def no_rules(lab: Lab) -> None:
    """Take all rules away."""
    lab.kubectl("-n", "default", "delete", "virtualservices,destinationrules", "--all")


_PILOT: Final = f"{PROJECT}_pilot_1"


def _codes(*codes: str) -> frozenset[str]:
    return frozenset(codes)


FAULTS: Final = (
    # ------------------------------------------------------------ the registry
    Fault(
        "registrator-drops-metadata",
        ("MD202",),
        _registrator_from("latest"),
        _codes("MD201", "MD401", "MD402"),
    ),
    Fault(
        "registrator-v7",
        ("MD202",),
        _registrator_from("v7"),
        _codes("MD201", "MD401", "MD402"),
    ),
    Fault(
        "protocol-forgotten",
        ("MD201",),
        application("ratings-v1", "      - SERVICE_PROTOCOL=http\n", ""),
        _codes("MD402", "MD403"),
        _codes("MD401"),
    ),
    Fault(
        "protocol-misspelt",
        ("MD203",),
        application("details-v1", "SERVICE_PROTOCOL=http", "SERVICE_PROTOCOL=htttp"),
        _codes("MD402", "MD403"),
        _codes("MD401"),
    ),
    Fault(
        "instances-disagree",
        ("MD204",),
        application("reviews-v2", "SERVICE_PROTOCOL=http", "SERVICE_PROTOCOL=tcp"),
    ),
    Fault(
        "first-instance-is-tcp",
        ("MD204",),
        application("reviews-v1", "      - SERVICE_PROTOCOL=http\n", ""),
        _codes("MD402", "MD403"),
        _codes("MD401"),
    ),
    Fault(
        "registrator-stopped",
        ("MD101",),
        _missed,
        _codes("MD206", "MD402"),
    ),
    Fault("event-missed", ("MD207",), lambda _lab: forget("ratings"), perhaps=_codes("MD309")),
    Fault(
        "stale-registration",
        ("MD206",),
        _stale,
        _codes("MD402"),
    ),
    Fault("registered-twice", ("MD206",), _new_registrator),
    Fault(
        "off-mesh-registration",
        ("MD208", "MD301"),
        _off_the_mesh,
        _codes("MD402"),
        why="whether the archive is to have a sidecar, its owner knows",
        tidy=_no_archive,
        leaves=_codes("MD301"),
    ),
    Fault(
        "tag-without-value",
        ("MD205",),
        application("reviews-v3", "version|v3", "v3"),
    ),
    Fault(
        "two-ports-one-name",
        ("MD210",),
        application("ratings-v1", 'expose: ["9080"]', 'expose: ["9080", "9443"]'),
    ),
    # ------------------------------------------------------------ the control plane
    Fault(
        "pilot-before-api-server",
        ("MD101",),
        _race,
        _codes("MD306"),
    ),
    Fault(
        "no-api-server",
        ("MD101",),
        _no_api_server,
        _codes("MD306"),
    ),
    Fault(
        "pilot-never-created",
        ("MD102",),
        docker("rm", "-f", _PILOT),
        _codes("MD306"),
    ),
    Fault(
        "consul-stopped",
        ("MD101",),
        docker("stop", "-t", "2", f"{PROJECT}_consul_1"),
        rounds=2,
    ),
    Fault(
        "consul-without-leader",
        ("MD104",),
        component(
            "consul",
            '"-dev"',
            '"-server", "-bootstrap-expect=3", "-data-dir", "/tmp/consul", "-bind", "127.0.0.1"',
        ),
        anew=True,
        why="the file asks for three servers; how many there are to be, its owner knows",
    ),
    Fault(
        "consul-denies",
        (),
        component(
            "consul",
            '"-dev"',
            '"-dev", "-hcl", "acl { enabled = true default_policy = \\"deny\\" }"',
        ),
        anew=True,
        unseen="403 Forbidden (Permission denied",
        why="Consul, asked without a token, shows nothing: that is said, and which token to give",
    ),
    Fault(
        "dns-published-elsewhere",
        ("MD105",),
        _gateway_elsewhere,
        tidy=_gateway_set,
    ),
    Fault(
        "dns-address-without-dns",
        ("MD105",),
        application("ratings-v1", "    dns: [172.28.0.1]\n", "    dns: [172.28.0.77]\n"),
    ),
    Fault(
        "no-search-domain",
        ("MD105",),
        application("ratings-v1", "    dns_search: [service.consul]\n", ""),
    ),
    # ------------------------------------------------------------ sidecars
    Fault(
        "init-without-capability",
        ("MD303",),
        both(
            lambda lab: edit(
                lab,
                lab.file("ratings-v1-init"),
                "ratings-v1-init",
                "    cap_add: [NET_ADMIN]\n",
                "",
            ),
            lambda lab: lab.renew("ratings-v1"),
        ),
    ),
    Fault(
        "redirect-flushed",
        ("MD303",),
        in_namespace(
            "ratings-v1",
            "iptables -t nat -D PREROUTING -p tcp -j ISTIO_INBOUND; "
            "iptables -t nat -D OUTPUT -p tcp -j ISTIO_OUTPUT",
        ),
    ),
    Fault(
        "init-forgotten",
        ("MD303",),
        _without_init,
        # The printed command leaves no init container behind, which others are judged by.
        tidy=lambda lab: lab.renew("ratings-v1"),
    ),
    Fault(
        "sidecar-stopped",
        ("MD302",),
        docker("stop", f"{PROJECT}_ratings-v1-sidecar_1"),
        _codes("MD301"),
    ),
    Fault(
        "sidecar-killed",
        ("MD302",),
        docker("kill", f"{PROJECT}_details-v1-sidecar_1"),
        _codes("MD301"),
    ),
    Fault(
        "sidecar-paused",
        ("MD302",),
        docker("pause", f"{PROJECT}_reviews-v2-sidecar_1"),
        _codes("MD301"),
    ),
    Fault(
        "sidecar-missing",
        ("MD301",),
        docker("rm", "-f", f"{PROJECT}_ratings-v1-sidecar_1"),
    ),
    Fault(
        "application-recreated",
        ("MD304",),
        lambda lab: lab.recreate("details-v1"),
        _codes("MD301"),
        _codes("MD303", "MD306", "MD307", "MD407"),
    ),
    Fault(
        "application-restarted",
        ("MD304",),
        docker("restart", "-t", "1", f"{PROJECT}_details-v1_1"),
        _codes("MD301", "MD303"),
        _codes("MD306", "MD307", "MD407"),
    ),
    Fault(
        "sidecar-of-another-service",
        ("MD305",),
        _other_address,
        _codes("MD402", "MD409"),
        by_hand=_own_address,
        why="what the sidecar was meant to say of itself, and where it says so, a person knows",
    ),
    Fault(
        "sidecar-cut-off",
        ("MD306",),
        sidecar("ratings-v1", "istio-pilot:15010", "istio-pilot:15011"),
        _codes("MD402", "MD409"),
        by_hand=sidecar("ratings-v1", "istio-pilot:15011", "istio-pilot:15010"),
        why="at which port Pilot was meant to answer, and in which command it stands",
    ),
    Fault(
        "discovery-misspelt",
        ("MD102",),
        sidecar("ratings-v1", "istio-pilot:15010", "istio-pilott:15010"),
        _codes("MD306", "MD402", "MD409"),
        by_hand=sidecar("ratings-v1", "istio-pilott:15010", "istio-pilot:15010"),
        why="the name stands in a shell command, whose words a person changes",
    ),
    Fault(
        "admin-exposed",
        ("MD310",),
        sidecar("ratings-v1", "proxy --disc", "proxy --proxyAdminAddress 0.0.0.0 --disc"),
        by_hand=edited(
            "ratings-v1-sidecar", "proxy --proxyAdminAddress 0.0.0.0 --disc", "proxy --disc"
        ),
        why="the setting stands in a shell command, whose words a person changes",
    ),
    Fault(
        "admin-hung",
        ("MD311",),
        docker("kill", "-s", "STOP", f"{PROJECT}_ratings-v1-sidecar_1"),
    ),
    Fault(
        "admin-closed",
        ("MD311",),
        sidecar("ratings-v1", "proxy --disc", "proxy --proxyAdminPort 0 --disc"),
        by_hand=edited("ratings-v1-sidecar", "proxy --proxyAdminPort 0 --disc", "proxy --disc"),
        why="the setting stands in a shell command, whose words a person changes",
    ),
    Fault(
        "application-stopped",
        ("MD304",),
        docker("stop", "-t", "1", f"{PROJECT}_ratings-v1_1"),
        perhaps=_codes("MD303", "MD306", "MD307", "MD407"),
    ),
    # ------------------------------------------------------------ rules
    Fault(
        "subset-undefined",
        ("MD501",),
        rules(
            destination_rule("reviews", versions("v1", "v2")),
            virtual_service("reviews", f"[{{route: [{to('v3')}]}}]"),
        ),
        _codes("MD404", "MD402"),
        tidy=no_rules,
    ),
    Fault(
        "subset-empty",
        ("MD502",),
        rules(
            destination_rule("reviews", versions("v9")),
            virtual_service("reviews", f"[{{route: [{to('v9')}]}}]"),
        ),
        _codes("MD405", "MD402"),
        by_hand=no_rules,
        why="which instances were meant to have the label, nobody but their owner knows",
    ),
    Fault(
        "rule-for-unknown-host",
        ("MD503",),
        rules(
            virtual_service(
                "reviews",
                "[{route: [{destination: {host: reviews.service.consul}}]}]",
                "reviewz.service.consul",
            )
        ),
        tidy=no_rules,
    ),
    Fault(
        "rule-never-reached",
        ("MD504",),
        rules(
            destination_rule("reviews", versions("v1", "v2")),
            virtual_service(
                "reviews",
                f"[{{route: [{to('v1')}]}}, "
                f"{{match: [{{uri: {{prefix: /new}}}}], route: [{to('v2')}]}}]",
            ),
        ),
        by_hand=no_rules,
        why="the order of a rule is changed in an editor",
    ),
    Fault(
        "weights-of-ninety",
        ("MD505",),
        rules(
            destination_rule("reviews", versions("v1", "v2")),
            virtual_service("reviews", f"[{{route: [{to('v1', 60)}, {to('v2', 30)}]}}]"),
        ),
        tidy=no_rules,
    ),
    Fault(
        "two-rules-one-host",
        ("MD506",),
        rules(
            destination_rule("reviews", versions("v1", "v2")),
            virtual_service("reviews", f"[{{route: [{to('v1')}]}}]"),
            virtual_service("reviews-new", f"[{{route: [{to('v2')}]}}]"),
        ),
        tidy=no_rules,
        why="the command that deletes the second is run; its routes are moved in an editor",
    ),
    Fault(
        "update-refused",
        ("MD308",),
        rules(
            virtual_service(
                "reviews",
                "[{match: [{uri: {regex: '('}}], "
                "route: [{destination: {host: reviews.service.consul}}]}]",
            )
        ),
        _codes("MD307"),
        by_hand=no_rules,
        why="what the rule was meant to say, only its author knows",
    ),
    Fault(
        "rule-never-in-effect",
        ("MD507",),
        both(
            component("pilot", '"--registries"', '"--appNamespace", "shop", "--registries"'),
            rules(
                destination_rule("reviews", versions("v1", "v2", "v3")),
                virtual_service("reviews", f"[{{route: [{to('v1')}]}}]"),
            ),
        ),
        by_hand=component("pilot", '"--appNamespace", "shop", "--registries"', '"--registries"'),
        why="Pilot reads the rules of one namespace alone: which, a person decides",
        tidy=no_rules,
    ),
    # ------------------------------------------------------------ more
    Fault(
        "really-tcp",
        ("MD301", "MD410"),
        _databases,
        perhaps=_codes("MD401", "MD402", "MD409"),
        by_hand=_no_databases,
        why="which of the two gets another port, only their owner knows",
    ),
    Fault(
        "two-at-once",
        ("MD203", "MD302"),
        both(
            docker("stop", f"{PROJECT}_reviews-v3-sidecar_1"),
            application("details-v1", "SERVICE_PROTOCOL=http", "SERVICE_PROTOCOL=htttp"),
        ),
        _codes("MD301", "MD402", "MD403"),
        _codes("MD401"),
    ),
)
