"""One request as an application sends it: what it meets, and by what it is known who answered."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import dns.flags
import dns.message
import dns.rrset
import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request as WerkzeugRequest
from werkzeug import Response

from meshdoctor.check import Examination
from meshdoctor.collectors import asking, probe
from meshdoctor.collectors.asking import MOST_OF_A_BODY, Asked, Question, Tool
from meshdoctor.collectors.interface import (
    CollectError,
    Deadline,
    NotAnsweringError,
    Options,
    OutOfTimeError,
    Output,
)
from meshdoctor.evidence.probe import AddressSource, Failure, How, Moved, ProbeResults
from meshdoctor.routing.calls import Calls
from meshdoctor.routing.registry import Registry
from meshdoctor.snapshot import Snapshot, open_snapshot
from meshdoctor.topology import Mesh
from tests.collectors.conftest import Behaviour, Serve, hang

MESHES = Path(__file__).parents[2] / "fixtures" / "meshes"


def to(url: str, path: str = "/", name: str = "") -> Question:
    parts = urlsplit(url)
    assert parts.port is not None
    return Question(name, parts.port, f"ratings:{parts.port}", path, ("127.0.0.1",))


def ask(url: str, path: str = "/", seconds: float = 5) -> Asked:
    return asking.Here(Deadline(30, seconds)).ask(to(url, path))


# ---------------------------------------------------------------- over a socket


def test_the_request_is_an_applications(httpserver: HTTPServer) -> None:
    """One GET, with the Host header that the application's URL gives, and the path asked for."""
    seen: list[WerkzeugRequest] = []

    def handle(request: WerkzeugRequest) -> Response:
        seen.append(request)
        return Response(b"I am ratings", 404, {"Server": "envoy"})

    httpserver.expect_request("/health").respond_with_handler(handle)
    asked = ask(httpserver.url_for(""), "/health?full=1")
    assert (asked.status, asked.body, asked.whole) == (404, b"I am ratings", True)
    assert asked.headers["Server"] == "envoy"
    assert asked.connected == f"127.0.0.1:{httpserver.port}"
    assert asked.addresses_from is AddressSource.URL
    (request,) = seen
    assert request.method == "GET"
    assert request.host == f"ratings:{httpserver.port}"
    assert request.query_string == b"full=1"


def test_no_more_of_a_body_is_read_than_is_needed(httpserver: HTTPServer) -> None:
    """64 KiB, and it is said that there was more."""
    httpserver.expect_request("/").respond_with_data(b"x" * (3 * MOST_OF_A_BODY))
    asked = ask(httpserver.url_for(""))
    assert len(asked.body) == MOST_OF_A_BODY
    assert not asked.whole


def answer(raw: bytes) -> Behaviour:
    """Send that, then close."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_RDWR)

    return behave


def stall(connection: socket.socket) -> None:
    """Begin an endless answer, as a stream of events does."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nfirst")


@pytest.mark.parametrize(
    ("behaviour", "failure", "status"),
    [
        (hang, Failure.TIMED_OUT, None),
        (answer(b""), Failure.CLOSED, None),
        (answer(b"\x4a\x00\x00\x00\x0a8.0.36\x00\x08"), Failure.NOT_HTTP, None),
        (answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"), Failure.NONE, 200),
        (
            answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nsho"),
            Failure.NONE,
            200,
        ),
        (stall, Failure.NONE, 200),
    ],
)
def test_what_a_call_meets(
    serve: Serve, behaviour: Behaviour, failure: Failure, status: int | None
) -> None:
    """Each fault has its own word; an answer that broke off is an answer, and not whole."""
    asked = ask(serve(behaviour), seconds=1)
    assert (asked.failure, asked.status, asked.whole) == (failure, status, status is None)
    assert bool(asked.error) == (failure is not Failure.NONE)


def test_an_answer_in_chunks_is_whole(serve: Serve) -> None:
    """Its end is said by the last chunk, not by a length."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    asked = ask(serve(answer(chunks)))
    assert (asked.body, asked.whole) == (b"whole", True)


def test_a_refusal_here_is_no_result() -> None:
    """Perhaps the caller does not run on this machine at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotAnsweringError, match="does not run here"):
        ask(f"http://127.0.0.1:{port}")


# ---------------------------------------------------------------- by the tools of an image


@pytest.fixture(params=asking.TOOLS, ids=lambda tool: tool.program)
def tool(request: pytest.FixtureRequest) -> Tool:
    chosen: Tool = request.param
    if shutil.which(chosen.program) is None:
        pytest.skip(f"this machine has no {chosen.program}")
    return chosen


class Exec:
    """An engine that runs commands on this machine."""

    def execute(self, _container: str, command: Sequence[str], *, user: str = "") -> Output:
        assert user == "0"
        done = subprocess.run(command, capture_output=True, check=False)
        return Output(done.returncode, done.stdout, done.stderr.decode("utf-8", "replace"))


def by_exec(tool: Tool, question: Question, seconds: float = 5) -> Asked:
    deadline = Deadline(30, seconds)
    way = asking.ByExec(Exec(), "any", deadline, user="0", tool=tool)  # type: ignore[arg-type] # as much of an engine as is used
    return way.ask(question)


@pytest.mark.parametrize("status", [200, 404, 503])
def test_a_tool_brings_the_whole_answer(tool: Tool, httpserver: HTTPServer, status: int) -> None:
    """Status, headers and body, errors of the application's included."""
    body = bytes(range(256)) * 20

    def handle(request: WerkzeugRequest) -> Response:
        assert request.host == f"ratings:{httpserver.port}"
        return Response(body, status, {"Server": "envoy"})

    httpserver.expect_request("/page", query_string="a=b&c='d'").respond_with_handler(handle)
    asked = by_exec(tool, to(httpserver.url_for(""), "/page?a=b&c='d'"))
    assert (asked.status, asked.failure, asked.whole) == (status, Failure.NONE, True)
    assert asked.body == body
    assert {name.lower() for name in asked.headers} >= {"server"}
    assert asked.connected == f"127.0.0.1:{httpserver.port}"


def test_a_tool_takes_chunks_as_they_come(tool: Tool, serve: Serve) -> None:
    """Whether it takes them apart itself or not."""
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n"
    assert by_exec(tool, to(serve(answer(chunks)))).body == b"whole"


def test_a_tool_reads_no_more_than_is_needed(tool: Tool, httpserver: HTTPServer) -> None:
    """However large the answer is."""
    httpserver.expect_request("/").respond_with_data(b"x" * (4 * MOST_OF_A_BODY))
    asked = by_exec(tool, to(httpserver.url_for("")))
    assert len(asked.body) == MOST_OF_A_BODY
    assert not asked.whole


def test_a_tool_tells_a_refusal(tool: Tool) -> None:
    """GNU's wget is silent: it is then taken for a connection that was closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    asked = by_exec(tool, to(f"http://127.0.0.1:{port}"))
    assert asked.status is None
    if tool.program != "wget":
        assert asked.failure is Failure.REFUSED


def test_a_tool_tells_a_hanging_server(tool: Tool, serve: Serve) -> None:
    """Within its time."""
    asked = by_exec(tool, to(serve(hang)), seconds=1)
    assert asked.status is None
    assert asked.failure is Failure.TIMED_OUT or tool.program == "wget"


def test_a_slow_answer_is_not_asked_for_again(tool: Tool, serve: Serve) -> None:
    """It was reached by its name: one request is one request."""
    connections: list[socket.socket] = []
    asked = by_exec(tool, to(serve(connections.append), name="localhost"), seconds=1)
    assert asked.status is None
    assert asked.addresses_from is AddressSource.NAME
    assert len(connections) == 1


def test_a_tool_goes_by_name_first(tool: Tool, httpserver: HTTPServer) -> None:
    """And by Consul's address where the name does not resolve, which is said."""
    httpserver.expect_request("/").respond_with_data(b"hello")
    url = httpserver.url_for("")
    known = by_exec(tool, to(url, name="localhost"))
    assert (known.body, known.addresses_from) == (b"hello", AddressSource.NAME)
    unknown = by_exec(tool, to(url, name="no-such-name.invalid"))
    assert unknown.resolution or tool.program == "wget"
    if tool.program != "wget":
        assert (unknown.body, unknown.addresses_from) == (b"hello", AddressSource.CONSUL)
        assert unknown.connected == f"127.0.0.1:{httpserver.port}"


def test_an_image_without_a_tool_is_no_way() -> None:
    """The next way is tried then."""

    class Empty:
        def execute(self, _container: str, _command: Sequence[str], *, user: str = "") -> Output:
            assert user == ""
            return Output(0, b"", "")

    way = asking.ByExec(Empty(), "any", Deadline(30, 5))  # type: ignore[arg-type] # as much of an engine as is used
    with pytest.raises(NotAnsweringError, match="none of curl"), ExitStack() as stack:
        way.open(stack)


# ---------------------------------------------------------------- names


@pytest.fixture
def name_server() -> Iterator[str]:
    """A name server that knows one name, on port 53 of a loopback address of its own."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind(("127.0.77.53", 53))
    except OSError as error:
        pytest.skip(f"no name server can run here: {error}")

    def serve() -> None:
        while True:
            try:
                data, client = server.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            query = dns.message.from_wire(data)
            reply = dns.message.make_response(query)
            name = query.question[0].name
            if str(name) == "ratings.service.consul.":
                reply.answer.append(dns.rrset.from_text(name, 0, "IN", "A", "192.0.2.7"))
            else:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            server.sendto(reply.to_wire(), client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield "127.0.77.53"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
        last.sendto(b"", ("127.0.77.53", 53))
    thread.join(5)
    server.close()


def names(hosts: str = "", resolver: str = "") -> asking._Names:
    return asking._Names(hosts, resolver)  # noqa: SLF001 # what a container's files say


def test_names_resolve_as_in_the_container(name_server: str) -> None:
    """By the search domain of its own resolv.conf; short names included."""
    files = names(resolver=f"search service.consul\nnameserver {name_server}\n")
    assert files.resolve("ratings", 3) == (("192.0.2.7",), "")
    found, why = files.resolve("details", 3)
    assert found == ()
    assert "no such name" in why
    assert name_server in why


def test_the_hosts_file_comes_first() -> None:
    """Comments and case do not matter; no name server is asked."""
    files = names("127.0.0.1 localhost\n::1 web\n192.0.2.9 API web # db\n")
    assert files.resolve("api", 1) == (("192.0.2.9",), "")
    assert files.resolve("WEB", 1) == (("192.0.2.9", "::1"), "")
    assert files.resolve("db", 1) == ((), "its /etc/resolv.conf names no name server")


def test_a_silent_name_server_is_said() -> None:
    """With its address and the time it had."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        try:
            silent.bind(("127.0.77.54", 53))
        except OSError as error:
            pytest.skip(f"no name server can run here: {error}")
        found, why = names(resolver="nameserver 127.0.77.54\n").resolve("api", 0.3)
    assert found == ()
    assert why == "no answer from its name server 127.0.77.54 in 0.3 s"


# ---------------------------------------------------------------- what is sent, and how fast


@pytest.fixture(scope="module")
def broken() -> tuple[Snapshot, Mesh, Calls]:
    snapshot = open_snapshot(MESHES / "broken.tgz")
    examination = Examination(snapshot)
    return snapshot, examination.get(Mesh), examination.get(Calls)


def test_a_plan_says_what_will_be_sent(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """How many, what, from where and to whom, before anything is."""
    _, mesh, calls = broken
    plan = probe.plan(mesh, calls.pairs)
    assert len(plan.pairs) == 24
    assert plan.announcement(probe.Probing()) == (
        "probe sends 24 GET / requests from 6 workloads to details, productpage, ratings, reviews"
    )
    one = probe.Plan(plan.pairs[:1])
    said = one.announcement(probe.Probing(path="/health", fingerprints=True))
    assert said.startswith("probe sends 1 GET /health request from 1 workload to details; ")


def test_what_speaks_no_http_is_left_out() -> None:
    """A GET is harmless to a web page, and a fault to a database."""
    recorded = open_snapshot(MESHES / "fixed.tgz")
    name = "consul/catalog/service/ratings.json"
    changed = recorded.read(name).replace(b'"protocol":"http"', b'"protocol":"mysql"')
    changed = changed.replace(b'"protocol": "http"', b'"protocol": "mysql"')
    documents = {each: recorded.read(each) for each in recorded.names()} | {name: changed}
    examination = Examination(Snapshot(documents))
    plan = probe.plan(examination.get(Mesh), examination.get(Calls).pairs)
    assert "ratings" not in {pair.callee for pair in plan.pairs}
    (said,) = plan.left_out
    assert said == "ratings on port 9080: it speaks mysql, to which a GET is no request"


def test_nothing_is_sent_where_there_is_no_way(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """No Docker, and a recording's processes are not here: each request says so."""
    snapshot, mesh, calls = broken
    plan = probe.Plan(probe.plan(mesh, calls.pairs).pairs[:5])
    options = Options(docker_host="unix:///nonexistent.sock", environment={})
    probed = probe.probe(snapshot, mesh, plan, options, probe.Probing(deadline=10))
    results = ProbeResults.load(probed)
    assert results.sent == ()
    assert len(results.probed) == 5
    assert all(
        "no way led into its network namespace" in each.request.error for each in results.probed
    )
    assert {each.document for each in probed.absent if each.document.startswith("probe/")}


def test_what_is_late_is_not_sent(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """The deadline holds for all of them together."""
    pace = probe._Pace(0.5)  # noqa: SLF001 # its bound
    deadline = Deadline(1, 1)
    pace.wait(deadline)
    with pytest.raises(OutOfTimeError, match="--probe-timeout"):
        pace.wait(deadline)
    assert broken


# ---------------------------------------------------------------- proxy statistics

COUNTS = b"""{"cluster_statuses": [{"name": "outbound|9080||ratings.service.consul",
 "host_statuses": [{"address": {"socket_address": {"address": "192.0.2.7", "port_value": 9080}},
  "stats": [{"name": "cx_total", "value": "%d"}, {"name": "rq_total", "value": "%d"},
            {"name": "rq_success"}]},
  {"address": {"pipe": {"path": "/x"}}}]}]}"""


def counted(connections: int, requests: int) -> probe._Counts:
    return probe._counted(COUNTS % (connections, requests))  # noqa: SLF001 # as Envoy writes it


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [((1, 4), (1, 5), 1), ((1, 4), (2, 5), 1), ((1, 4), (2, 4), 1), ((1, 4), (1, 4), None)],
)
def test_what_an_envoy_counts(
    before: tuple[int, int], after: tuple[int, int], expected: int | None
) -> None:
    """A request over an old connection counts, and so does a connection without a request."""
    moved = probe._moved(counted(*before), counted(*after))  # noqa: SLF001 # the difference
    cluster = "outbound|9080||ratings.service.consul"
    wanted = () if expected is None else (Moved(cluster, "192.0.2.7", 9080, expected),)
    assert moved == wanted
    assert probe._moved(None, counted(1, 1)) is None  # noqa: SLF001 # nobody counted before


@pytest.mark.parametrize("raw", [b"", b"[]", b'{"cluster_statuses": 1}', b"[" * 5000, b"\xff"])
def test_statistics_that_cannot_be_read_are_none(raw: bytes) -> None:
    """Then something else must tell who answered."""
    with pytest.raises(CollectError):
        probe._counted(raw)  # noqa: SLF001 # a damaged page


def test_recorded_statistics_are_read() -> None:
    """Every endpoint of a real Envoy's page."""
    recorded = open_snapshot(MESHES / "fixed.tgz")
    raw = recorded.read("envoy/consul_details-v1-sidecar_1/clusters.json")
    counts = probe._counted(raw)  # noqa: SLF001 # a real page
    assert any("reviews" in cluster for cluster, _, _ in counts)


def who(
    broken: tuple[Snapshot, Mesh, Calls],
    *,
    moved: Sequence[Moved] | None,
    caller: str = "consul_details-v1_1",
    connected: str = "",
    status: int | None = 200,
    headers: dict[str, str] | None = None,
    body: bytes = b"hello",
) -> tuple[str | None, How, str]:
    snapshot, mesh, _ = broken
    deadline = Deadline(10, 1)
    prober = probe._Prober(  # noqa: SLF001 # as a run has it
        Registry(mesh),
        snapshot,
        None,
        "",
        Options(),
        probe.Probing(answer_header="X-Service"),
        deadline,
        probe._Pace(100),  # noqa: SLF001
    )
    asked = Asked(
        Question("ratings", 9080, "ratings:9080", "/", ()),
        AddressSource.NAME,
        connected=connected,
        status=status,
        body=body,
    )
    told = prober.caller(caller, ())._answered_by(  # noqa: SLF001 # its one judgement
        asked, headers or {}, None if moved is None else tuple(moved)
    )
    return told.service, told.how, told.flag


def endpoint(mesh: Mesh, service: str, number: int = 1) -> Moved:
    at = mesh.services[service].instances[0]
    return Moved(f"outbound|9080||{service}.service.consul", at.address, at.port, number)


INWARD = Moved("inbound|9080|tcp|details.service.consul", "127.0.0.1", 9080, 1)


def test_the_proxys_count_tells_first(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """Before a header, which anybody can write."""
    mesh = broken[1]
    moved = [endpoint(mesh, "reviews")]
    headers = {"x-service": "ratings"}
    assert who(broken, moved=moved, headers=headers) == ("reviews", How.STATISTICS, "")


def test_two_services_that_moved_tell_nothing(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """The application itself may have called one of them."""
    mesh = broken[1]
    moved = [endpoint(mesh, "reviews"), endpoint(mesh, "ratings")]
    assert who(broken, moved=moved) == (None, How.UNKNOWN, "")


def test_calls_from_others_do_not_count(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """What comes in to the caller meanwhile is no answer of its own call."""
    mesh = broken[1]
    moved = [endpoint(mesh, "reviews"), INWARD]
    assert who(broken, moved=moved) == ("reviews", How.STATISTICS, "")
    assert who(broken, moved=[INWARD]) == (None, How.UNKNOWN, "")


def test_a_call_to_ones_own_address_comes_in_again(
    broken: tuple[Snapshot, Mesh, Calls],
) -> None:
    """Then the way in is the way it went; with another way beside it, nothing is known."""
    mesh = broken[1]
    at = mesh.services["details"].instances[0]
    own = f"{at.address}:{at.port}"
    assert who(broken, moved=[INWARD], connected=own) == ("details", How.STATISTICS, "")
    both = [INWARD, endpoint(mesh, "reviews")]
    assert who(broken, moved=both, connected=own) == (None, How.UNKNOWN, "")


def test_a_header_names_a_service_or_an_instance(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """Any other value says nothing."""
    for told, service in (
        ("ratings", "ratings"),
        ("consul_reviews-v2_1", "reviews"),
        ("elsewhere", None),
    ):
        how = How.UNKNOWN if service is None else How.HEADER
        assert who(broken, moved=None, headers={"x-service": told}) == (service, how, "")


def test_a_proxys_own_answer_is_nobodys(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """Whatever was counted."""
    moved = [endpoint(broken[1], "reviews")]
    met = who(broken, moved=moved, status=503, body=b"no healthy upstream")
    assert met == (None, How.PROXY, "UH")


def test_without_an_answer_nobody_answered(broken: tuple[Snapshot, Mesh, Calls]) -> None:
    """Even where the proxy had sent the call on."""
    moved = [endpoint(broken[1], "reviews")]
    assert who(broken, moved=moved, status=None) == (None, How.UNKNOWN, "")
