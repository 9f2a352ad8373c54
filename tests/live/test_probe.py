"""Real requests from inside real namespaces: prediction, probe and applications say the same."""

import hashlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import dns.message
import dns.rcode
import dns.rrset
import pytest
from msgspec.structs import replace

from meshdoctor.check import Examination
from meshdoctor.collectors import Options, asking, collect, docker, namespace, probe
from meshdoctor.collectors.interface import Deadline
from meshdoctor.diagnosis import Checks, examine
from meshdoctor.evidence.probe import AddressSource, Failure, How, ProbeResults
from meshdoctor.report.document import CheckVerdict, Report
from meshdoctor.routing.calls import Calls
from meshdoctor.routing.probed import Agreement, Comparison, compare
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh, SidecarState
from meshdoctor_checks import CHECKS
from tests.cli.conftest import process
from tests.live.conftest import RECORDING, running
from tests.live.mesh import LiveMesh

FIXED = RECORDING.with_name("fixed.tgz")
AS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("CI"), reason="entering a namespace needs root"
)


@dataclass(frozen=True)
class Seen:
    """A mesh that was probed."""

    snapshot: Snapshot
    compared: tuple[Comparison, ...]
    report: Report


def options(mesh: LiveMesh) -> Options:
    """The Consul of this very mesh, whatever else runs on the machine."""
    port = mesh.engine.port(mesh.containers["consul"], 8500)[0]["HostPort"]
    return Options(consul=f"http://127.0.0.1:{port}")


def probed(mesh: LiveMesh, callees: tuple[str, ...] = ()) -> Seen:
    gathered = collect(options(mesh), lambda _message: None)
    examination = Examination(gathered)
    joined, calls = examination.get(Mesh), examination.get(Calls)
    pairs = [
        pair
        for pair in calls.pairs
        if pair.caller.startswith(mesh.project) and (not callees or pair.callee in callees)
    ]
    plan = probe.plan(joined, pairs)
    assert plan.left_out == ()
    snapshot = probe.probe(gathered, joined, plan, options(mesh), probe.Probing(rate=100))
    compared = compare(joined, calls, ProbeResults.load(snapshot))
    assert len(compared) == len(pairs)
    return Seen(
        snapshot, tuple(compared), examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"})
    )


@contextmanager
def name_server(mesh: LiveMesh) -> Iterator[None]:
    """Consul's DNS, in Consul's own namespace: its port is published on the network's gateway."""
    known = {}
    for name in mesh.recording.names("consul/catalog/service/"):
        for each in json.loads(mesh.recording.read(name)):
            known[f"{each['ServiceName']}.service.consul."] = mesh.here(each["ServiceAddress"])
    pid = mesh.engine.inspect_container(mesh.containers["consul"])["State"]["Pid"]

    def open_port() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", 8600))  # noqa: S104 # of that namespace
        return made

    server = namespace.within(pid, open_port, 5)
    server.settimeout(0.2)
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            try:
                data, client = server.recvfrom(4096)
            except TimeoutError:
                continue
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query)
            name = query.question[0].name
            if str(name) in known:
                reply.answer.append(dns.rrset.from_text(name, 0, "IN", "A", known[str(name)]))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            server.sendto(reply.to_wire(), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(5)
        server.close()


@pytest.fixture(scope="module")
def seen(mesh: LiveMesh) -> Seen:
    """The broken mesh, with a name server."""
    with name_server(mesh):
        return probed(mesh)


def pages(mesh: LiveMesh) -> Mapping[str, str]:
    """Whose page it is, by the hash of what each application answers."""
    found = {}
    for app in mesh.apps:
        page = mesh.execute(app, "cat", "/www/index.html").encode()
        found[hashlib.sha256(page).hexdigest()] = app.partition("-")[0]
    return found


@AS_ROOT
def test_prediction_probe_and_applications_agree(mesh: LiveMesh, seen: Seen) -> None:
    """In every pair of the broken mesh: what was predicted, counted, and what came back."""
    whose = pages(mesh)
    assert len(seen.compared) == 24
    for each in seen.compared:
        request = each.request
        assert request.answer is not None
        assert request.answered_by.how is How.STATISTICS
        assert request.answered_by.service == whose[request.answer.sha256]
        assert each.agreement is Agreement.SAME
    wrong = [each for each in seen.compared if each.request.answered_by.service == "reviews"]
    assert len(wrong) > len(seen.compared) / 2


@AS_ROOT
def test_names_resolve_as_for_the_application(seen: Seen) -> None:
    """By the engine's own DNS, which asks the network's gateway."""
    assert {each.request.addresses_from for each in seen.compared} == {AddressSource.NAME}
    assert {each.probed.way for each in seen.compared} == {"namespace"}


@AS_ROOT
def test_what_answered_hangs_below_its_cause(seen: Seen) -> None:
    """The port's collision explains what the probe met; the probe finds nothing else."""
    by_id = {finding.id: finding for finding in seen.report.findings}
    met = [each for each in seen.report.findings if each.code == "MD601"]
    assert met
    for each in met:
        assert "MD401" in {by_id[cause].code for cause in each.causes}
    verdicts = {each.code: each.verdict for each in seen.report.checks}
    assert verdicts["MD602"] is CheckVerdict.CLEAN
    assert verdicts["MD603"] is CheckVerdict.CLEAN
    assert verdicts["MD604"] is CheckVerdict.CLEAN


@AS_ROOT
def test_no_body_is_recorded(seen: Seen) -> None:
    """What applications answer is nobody else's business."""
    for name in seen.snapshot.names("probe/"):
        assert b'"container"' not in seen.snapshot.read(name)


@AS_ROOT
def test_in_a_fixed_mesh_each_answers_for_itself(images: Mapping[str, str]) -> None:
    """And without a name server the missing names are said, and Consul's addresses taken."""
    named = {**images, "gliderlabs/registrator:master": images["gliderlabs/registrator:latest"]}
    fixed = LiveMesh(
        open_snapshot(FIXED),
        named,
        f"mdtest{uuid.uuid4().hex[:6]}",
        apps=("details-v1", "ratings-v1"),
    )
    with running(fixed) as mesh:
        seen = probed(mesh, ("details", "ratings"))
        whose = pages(mesh)
    for each in seen.compared:
        request = each.request
        assert request.answer is not None
        assert request.answered_by.service == request.callee == whose[request.answer.sha256]
        assert each.agreement is Agreement.SAME
        assert request.addresses_from is AddressSource.CONSUL
        assert "127.0.0.11" in request.resolution
    assert "MD602" in {finding.code for finding in seen.report.findings}


@pytest.mark.parametrize(
    "tool",
    # The image has no Python, and the shell in it takes its own wget, which is not used.
    [tool for tool in asking.TOOLS if tool.program in {"curl", "bash"}],
    ids=lambda tool: tool.program,
)
def test_a_command_in_the_sidecar_meets_the_same(mesh: LiveMesh, tool: asking.Tool) -> None:
    """As root there, whom the redirect does not let pass as it does the proxy's own user."""
    owner = next(
        each for each in json.loads(mesh.recording.read("consul/catalog/service/ratings.json"))
    )
    address = mesh.here(owner["ServiceAddress"])
    question = asking.Question("", 9080, "ratings:9080", "/", (address,))
    deadline = Deadline(60, 10)
    engine = docker.connect(Options(), deadline)
    try:
        sidecar = mesh.containers["details-v1-sidecar"]
        asked = asking.ByExec(engine, sidecar, deadline, user="0", tool=tool).ask(question)
        passing = asking.ByExec(engine, sidecar, deadline, user=asking.PROXY_UID, tool=tool).ask(
            question
        )
    finally:
        engine.close()
    assert (asked.failure, asked.status) == (Failure.NONE, 200)
    assert json.loads(asked.body)["service"] == "reviews"
    # This is why it is asked as another user.
    assert json.loads(passing.body)["service"] == "ratings"


@AS_ROOT
def test_a_fingerprint_tells_where_no_proxy_counts(mesh: LiveMesh, seen: Seen) -> None:
    """Each answer is compared with what every workload says of itself on its own localhost."""
    examination = Examination(seen.snapshot)
    joined = examination.get(Mesh)
    unread = replace(
        joined,
        workloads=tuple(
            replace(
                workload,
                sidecars=tuple(
                    replace(sidecar, state=SidecarState.UNREACHABLE)
                    for sidecar in workload.sidecars
                ),
            )
            for workload in joined.workloads
        ),
    )
    details = mesh.name("details-v1")
    pairs = [pair for pair in examination.get(Calls).pairs if pair.caller == details]
    probing = probe.Probing(rate=100, fingerprints=True)
    again = probe.probe(seen.snapshot, unread, probe.plan(unread, pairs), options(mesh), probing)
    whose = pages(mesh)
    found = [each for each in ProbeResults.load(again).sent if each.caller == details]
    assert len(found) == 4
    for each in found:
        assert each.request.answer is not None
        assert each.request.answered_by.how is How.BODY
        assert each.request.answered_by.service == whose[each.request.answer.sha256]


@AS_ROOT
def test_the_command_shows_it(mesh: LiveMesh) -> None:
    """The table, then the diagnosis, and a finding's exit code."""
    ran = process(
        "probe",
        *("--consul", options(mesh).consul, "--caller", mesh.name("reviews-*"), "--rate", 100),
        *("--callee", "ratings", "--width", 200),
    )
    assert ran.code == 1, ran.stderr
    assert "probe sends 3 GET / requests from 3 workloads to ratings\n" in ran.stderr
    rows = [line for line in ran.stdout.splitlines() if "proxy statistics" in line]
    assert len([row for row in rows if "reviews, 200" in row and "same" in row]) == 3
    assert "0 of 3 requests were answered by the service asked; 3 of 3 met" in ran.stdout
