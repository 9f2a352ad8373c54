"""No secret leaves with a snapshot, and nothing that checks need is lost."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.snapshot import open_snapshot
from meshdoctor.snapshot.redaction import MASK, RedactionError, redact, redact_text

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"
RECORDINGS = sorted(MESHES.glob("*.tgz"))

# Every planted secret holds this word, so that one search finds what was missed.
PLANTED = "pl4nted"
TOKEN = f"{PLANTED}-5f1a0c9e-0000-4000-8000-c0ffee000001"
PEM = f"-----BEGIN PRIVATE KEY-----\nMIIC{PLANTED}AAAA\n-----END PRIVATE KEY-----\n"
JWT = f"eyJhbGciOiJub25lIn0.{PLANTED}AAAAAAAA.{PLANTED}"
URL = f"https://admin:{PLANTED}@registry.example/v2/"


def redacted(name: str, document: Any) -> Any:
    clean, count = redact(name, json.dumps(document).encode())
    assert PLANTED not in clean.decode(), clean.decode()
    assert count
    return json.loads(clean)


def test_a_container_keeps_what_checks_need_and_nothing_else() -> None:
    """Its environment is where applications keep their passwords."""
    container = {
        "Id": "c0",
        "Name": "/web",
        "Path": "run",
        "Args": ["-token", TOKEN, f"--password={TOKEN}", "-consul", URL, "-tokenFile", "/run/t"],
        "ResolvConfPath": f"/var/lib/docker/{PLANTED}",
        "State": {"Status": "exited", "ExitCode": 255, "Error": f"bad {URL}"},
        "HostConfig": {"NetworkMode": "mesh", "LogConfig": {"Config": {"splunk-token": TOKEN}}},
        "Config": {
            "Image": "web:1",
            "Env": [
                f"DB_PASSWORD={TOKEN}",
                "SERVICE_NAME=web",
                f"SERVICE_API_KEY={TOKEN}",
                f"DOCKER_HOST=tcp://me:{PLANTED}@engine:2375",
                f"AWS={TOKEN}",
            ],
            "Cmd": [
                "sh",
                "-c",
                f"curl -H 'Authorization: Bearer {TOKEN}' && PASSWORD={TOKEN} run",
            ],
            "Labels": {
                "com.docker.compose.service": "web",
                "SERVICE_TAGS": "version|v1",
                "traefik.auth": TOKEN,
            },
        },
        "Mounts": [{"Source": f"/home/{PLANTED}"}],
        "NetworkSettings": {"Networks": {"mesh": {"IPAddress": "10.0.0.2", "Key": PLANTED}}},
    }
    (kept,) = redacted("docker/containers.json", [container])
    assert kept["Config"]["Env"] == [
        "SERVICE_NAME=web",
        f"SERVICE_API_KEY={MASK}",
        f"DOCKER_HOST=tcp://{MASK}@engine:2375",
    ]
    assert kept["Config"]["Labels"] == {
        "com.docker.compose.service": "web",
        "SERVICE_TAGS": "version|v1",
    }
    assert kept["Args"][0] == "-token"
    assert kept["Args"][-2:] == ["-tokenFile", "/run/t"]
    assert kept["State"]["ExitCode"] == 255
    assert kept["NetworkSettings"]["Networks"]["mesh"] == {"IPAddress": "10.0.0.2"}


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("docker/images.json", [{"Id": "i", "Config": {"Env": [f"KEY={TOKEN}"]}}]),
        ("docker/networks.json", [{"Id": "n", "Options": {"com.example.secret": TOKEN}}]),
        ("docker/info.json", {"Name": "h", "HttpProxy": f"http://me:{PLANTED}@proxy"}),
        (
            "consul/agent/self.json",
            {"Config": {"Version": "1"}, "DebugConfig": {"ACLTokens": {"ACLAgentToken": TOKEN}}},
        ),
        (
            "consul/catalog/service/web.json",
            [
                {
                    "ServiceMeta": {"protocol": "http", "api_key": TOKEN},
                    "ServiceProxy": {
                        "Config": {
                            "envoy_extra_static_clusters_json": f'{{"private_key": "{PEM}"}}',
                            "aws_secret_access_key": TOKEN,
                        }
                    },
                }
            ],
        ),
        (
            "consul/health/service/web.json",
            [{"Checks": [{"Output": f"GET {URL}: 200 Set-Cookie: session={TOKEN}"}]}],
        ),
        ("consul/agent/services.json", {"web": {"Meta": {"token": TOKEN}}}),
        ("consul/config/proxy-defaults.json", [{"Config": {"password": TOKEN}}]),
        ("consul/connect/ca/roots.json", {"Roots": [{"RootCert": PEM}]}),
        ("pilot/configz.json", [{"spec": {"http": [{"headers": {"authorization": TOKEN}}]}}]),
        ("pilot/registryz.json", [{"hostname": "web", "attributes": {"note": JWT}}]),
        (
            "kube/config.json",
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://k", "x": TOKEN}}],
                "users": [{"user": {"token": TOKEN}}],
            },
        ),
        ("envoy/web/access.json", {"way": "url", "tried": [{"reason": f"at {URL}: refused"}]}),
        (
            "envoy/web/server_info.json",
            {
                "node": {"id": "web", "extensions": [PLANTED], "metadata": {"TOKEN": TOKEN}},
                "command_line_options": {"config_yaml": f"private_key: {TOKEN}"},
            },
        ),
        ("some/other.json", {"a": {"password": [TOKEN, {"b": TOKEN}]}}),
    ],
)
def test_no_document_lets_a_secret_through(name: str, document: Any) -> None:
    """One of each kind that collectors record."""
    redacted(name, document)


def envoy_dump() -> Mapping[str, Any]:
    tls = {
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": PEM},
                    "private_key": {"inline_bytes": TOKEN},
                    "password": {"inline_string": TOKEN},
                }
            ],
            "validation_context": {"trusted_ca": {"inline_string": PEM}},
        }
    }
    grpc = {"initial_metadata": [{"key": "x-consul-token", "value": TOKEN}]}
    header = {"header": {"key": "Authorization", "value": f"Bearer {TOKEN}"}}
    match = {"name": "cookie", "string_match": {"exact": TOKEN}}
    route = {"match": {"headers": [match]}, "request_headers_to_add": [header]}
    return {
        "configs": [
            {
                "@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump",
                "bootstrap": {
                    "node": {"id": "web", "extensions": [{"name": PLANTED}]},
                    "dynamic_resources": {"ads_config": {"grpc_services": [grpc]}},
                },
            },
            {
                "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
                "dynamic_active_clusters": [{"cluster": {"transport_socket": tls}}],
            },
            {
                "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
                "dynamic_listeners": [
                    {"name": "a"},
                    {"name": "b", "lua": {"inline_code": f"password = '{TOKEN}'"}},
                    {"name": "c", "credentials": {"client_secret": TOKEN, "url": URL}},
                ],
            },
            {
                "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
                "dynamic_route_configs": [{"route_config": {"routes": [route]}}],
            },
            {
                "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
                "dynamic_active_secrets": [
                    {
                        "name": "default",
                        "version_info": "7",
                        "secret": {
                            "name": "default",
                            "generic_secret": {"secret": {"environment_variable": TOKEN}},
                            "tls_certificate": {"private_key": {"filename": TOKEN}},
                        },
                    }
                ],
            },
        ]
    }


def shape(value: Any) -> Any:
    """Keys and lengths, without what stands in them."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items() if key != "extensions"}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value).__name__


def test_a_dump_loses_its_secrets_and_keeps_its_structure() -> None:
    """A JSON pointer leads to the same place as before."""
    kept = redacted("envoy/web/config_dump.json", envoy_dump())
    assert shape(kept) == shape(envoy_dump())
    secrets = kept["configs"][4]["dynamic_active_secrets"][0]
    assert (secrets["name"], secrets["version_info"]) == ("default", "7")
    assert kept["configs"][2]["dynamic_listeners"][0] == {"name": "a"}


def test_the_bootstrap_loses_what_envoy_was_built_with() -> None:
    """A hundred kilobytes, in each dump the same."""
    kept = redacted("envoy/web/config_dump.json", envoy_dump())
    assert kept["configs"][0]["bootstrap"]["node"] == {"id": "web"}


@pytest.mark.parametrize(
    "line",
    [
        f"level=info Authorization: Bearer {TOKEN}",
        f'headers={{"X-Consul-Token": "{TOKEN}"}}',
        f"FLAG: --password={TOKEN}",
        f"started with -token {TOKEN} -internal",
        f"connecting to {URL}",
        f"got {JWT}",
        f"PGPASSWORD={TOKEN} psql",
        f"aws_secret_access_key: {TOKEN}",
        f"encrypt = {TOKEN}",
    ],
)
def test_a_line_of_a_log_stays_a_line_without_its_secret(line: str) -> None:
    """Its time and its other words are evidence."""
    raw = f"2026-11-22T19:59:08Z {line}\nnext\n".encode()
    clean, count = redact("docker/logs/web.log", raw)
    assert PLANTED not in clean.decode()
    assert clean.startswith(b"2026-11-22T19:59:08Z ")
    assert clean.endswith(b"\nnext\n")
    assert count


@pytest.mark.parametrize(
    "line",
    [
        "Using consul adapter: consul://consul:8500",
        "give a token that may read it with --consul-token-file or CONSUL_HTTP_TOKEN",
        "failed to create discovery service: config controller: connection refused",
        "--tokenFile=/run/token",
        "secretsEnabled: false",
        "Listener=0.0.0.0:9080 AcceptedTCP=details RejectedTCP=reviews",
    ],
)
def test_an_innocent_line_is_left_as_it_was(line: str) -> None:
    """Checks quote it."""
    assert redact_text(line) == line


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_is_redacted_once(path: Path) -> None:
    """What was redacted comes back byte for byte."""
    snapshot = open_snapshot(path)
    for name in snapshot.names():
        clean, _ = redact(name, snapshot.read(name))
        assert redact(name, clean) == (clean, 0), name


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from strings(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings(each)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_no_recorded_secret_is_left(path: Path) -> None:
    """Not one key or certificate body of a real mesh."""
    snapshot = open_snapshot(path)
    for name in snapshot.names():
        assert b"-----BEGIN" not in redact(name, snapshot.read(name))[0], name


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.stem)
def test_what_decides_traffic_is_not_redacted(path: Path) -> None:
    """Listeners, clusters, endpoints and names are as they were."""
    snapshot = open_snapshot(path)
    for name in snapshot.names("envoy/"):
        if name.endswith("config_dump.json"):
            before = json.loads(snapshot.read(name))["configs"]
            after = json.loads(redact(name, snapshot.read(name))[0])["configs"]
            lost = {*strings(before[1:])} - {*strings(after[1:])}
            assert not [each for each in lost if not each.startswith("-----BEGIN")], name


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nonsense"])
@pytest.mark.parametrize("name", ["docker/containers.json", "envoy/web/config_dump.json"])
def test_what_cannot_be_understood_is_refused(name: str, raw: bytes) -> None:
    """It might hold anything."""
    with pytest.raises(RedactionError):
        redact(name, raw)


@pytest.mark.parametrize(
    "document", [None, 1, "text", [], {}, [1], [[{}]], {"configs": 1}, {"Config": [1]}]
)
def test_another_form_than_expected_is_no_crash(document: Any) -> None:
    """The decoders say what is wrong with it."""
    for name in ("docker/containers.json", "consul/agent/self.json", "envoy/web/config_dump.json"):
        clean, left_out = redact(name, json.dumps(document).encode())
        assert json.loads(clean) == document or left_out


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_innocent_json_keeps_its_shape(document: Any) -> None:
    """Whatever stands in it; and twice gives what once gave."""
    clean, _ = redact("pilot/push_status.json", json.dumps(document).encode())
    assert shape(json.loads(clean)) == shape(document)
    assert redact("pilot/push_status.json", clean)[1] == 0


@given(st.text(max_size=200))
def test_text_is_redacted_once(text: str) -> None:
    """A mask is not masked again."""
    once = redact_text(text)
    assert redact_text(once) == once


def test_a_very_long_line_costs_no_more_than_its_length() -> None:
    """Docker hands out sixteen thousand letters at a time."""
    line = "a" * 200_000 + "=" + "-" * 200_000
    assert redact_text(line) == line


def test_of_a_rule_only_what_it_says_is_kept() -> None:
    """The annotation of `kubectl apply` holds all of it a second time, cookies and all."""
    metadata = {"name": "reviews", "namespace": "default", "annotations": {"last": PLANTED}}
    match = {"headers": {"cookie": {"exact": PLANTED}, "end-user": {"exact": "jason"}}}
    spec = {"hosts": ["reviews"], "http": [{"match": [match]}]}
    items = [{"kind": "VirtualService", "metadata": metadata, "spec": spec}]
    clean, _ = redact("istio/virtualservices.json", json.dumps({"items": items}).encode())
    assert PLANTED not in clean.decode()
    (kept,) = json.loads(clean)["items"]
    assert kept["metadata"] == {"name": "reviews", "namespace": "default"}
    assert kept["spec"]["http"][0]["match"][0]["headers"]["end-user"] == {"exact": "jason"}
    pilots = [{"type": "virtual-service", **metadata, "Spec": spec}, {}]
    clean, _ = redact("pilot/configz.json", json.dumps(pilots).encode())
    assert PLANTED not in clean.decode()
    first, last = json.loads(clean)
    assert (first["name"], first["Spec"]["hosts"], last) == ("reviews", ["reviews"], {})


@pytest.mark.parametrize("header", ["x-api-key", "X-Access-Key", "signing-key", "encrypt_key"])
def test_a_part_is_looked_into_for_every_name_that_may_hold_a_secret(header: str) -> None:
    """Also where nothing else in it looks like one, however the name is spelt."""
    match = {"name": header, "exact_match": TOKEN}
    routes = {"virtual_hosts": [{"routes": [{"match": {"headers": [match]}}]}]}
    configs = {"configs": [{"@type": "x.RoutesConfigDump", "route_config": routes}]}
    redacted("envoy/web/config_dump.json", configs)


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("docker/containers.json", [{"Args": [{"password": TOKEN}, "run"]}]),
        ("docker/containers.json", [{"Args": f"--token={TOKEN}"}]),
        ("consul/agent/services.json", {"web": {"Tags": {"token": TOKEN}}}),
        ("consul/agent/services.json", {"web": {"Meta": [{"token": TOKEN}]}}),
        (
            "envoy/web/config_dump.json",
            {"configs": [{"bootstrap": {"grpc": {"initial_metadata": {"x-token": TOKEN}}}}]},
        ),
        (
            "envoy/web/config_dump.json",
            {"configs": [{"bootstrap": {"grpc": {"initial_metadata": [TOKEN]}}}]},
        ),
    ],
)
def test_what_has_another_form_is_masked_all_the_same(name: str, document: Any) -> None:
    """A list where a text should be, a mapping where a list should be."""
    clean, count = redact(name, json.dumps(document).encode())
    assert TOKEN not in clean.decode(), clean.decode()
    assert count
