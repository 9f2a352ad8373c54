"""Ways in their order, and by exec in an image that is a folder of this machine's programs."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdoctor.collectors import namespace, ways
from meshdoctor.collectors.http import Get
from meshdoctor.collectors.interface import (
    AnswerError,
    CollectError,
    Deadline,
    HungError,
    NotAnsweringError,
    Output,
)
from meshdoctor.collectors.tools import Batch, Place
from meshdoctor.evidence.docker import DockerEngine
from meshdoctor.snapshot import open_snapshot


class FakeEngine:
    """Runs no container: answers by program."""

    def __init__(self, outputs: dict[str, Output]) -> None:
        self.outputs = outputs
        self.ran: list[str] = []

    def execute(self, _container: str, command: Sequence[str], *, user: str = "") -> Output:  # noqa: ARG002 # as the engine's
        self.ran.append(command[0])
        return self.outputs.get(command[0], Output(127, b"", f"{command[0]}: not found"))


RECORDING = Path(__file__).parents[2] / "fixtures" / "meshes" / "fixed.tgz"


def page(get: Get) -> bytes:
    return get("/page")


def by_exec(engine: FakeEngine, deadline: Deadline) -> bytes:
    way = ways.ByExec(engine, "c", [15000, 19000], deadline)  # type: ignore[arg-type] # enough of an engine
    return way.read(page)


def test_one_exec_finds_what_the_image_has(deadline: Deadline) -> None:
    """Only what is there is tried."""
    engine = FakeEngine(
        {"sh": Output(0, b"/usr/bin/wget\nwget\n", ""), "wget": Output(0, b"ok", "")}
    )
    assert by_exec(engine, deadline) == b"ok"
    assert engine.ran == ["sh", "wget"]


def test_without_a_shell_each_is_tried(deadline: Deadline) -> None:
    """Distroless images of Istio's have pilot-agent and nothing else."""
    engine = FakeEngine({"pilot-agent": Output(0, b"ok", "")})
    assert by_exec(engine, deadline) == b"ok"
    assert engine.ran == ["sh", "curl", "wget", "pilot-agent"]


def test_a_refused_port_is_tried_once(deadline: Deadline) -> None:
    """The next port is, with the same tool."""
    engine = FakeEngine(
        {"sh": Output(0, b"curl\nbash\n", ""), "curl": Output(7, b"", "curl: (7) Failed")}
    )
    with pytest.raises(NotAnsweringError, match=r"connection refused \(15000, 19000\)"):
        by_exec(engine, deadline)
    assert engine.ran == ["sh", "curl", "curl"]


def test_a_hung_admin_interface_is_not_asked_again(deadline: Deadline) -> None:
    """Each further tool would cost another timeout."""
    engine = FakeEngine(
        {"sh": Output(0, b"curl\nbash\n", ""), "curl": Output(28, b"", "curl: (28) timed out")}
    )
    with pytest.raises(HungError):
        by_exec(engine, deadline)
    assert engine.ran == ["sh", "curl"]


def test_an_image_with_nothing_says_what_would_do(deadline: Deadline) -> None:
    """So that somebody can add it."""
    engine = FakeEngine({"sh": Output(0, b"", "")})
    with pytest.raises(NotAnsweringError, match="none of curl, wget, pilot-agent, python3, bash"):
        by_exec(engine, deadline)


# ---------------------------------------------------------------- several pages by one exec


class Image:
    """An engine with one container, in whose image are these programs of this machine, by name."""

    def __init__(self, folder: Path, programs: Mapping[str, str]) -> None:
        self.folder = folder
        self.ran: list[Sequence[str]] = []
        folder.mkdir()
        for name, path in programs.items():
            (folder / name).symlink_to(path)

    def execute(self, _container: str, command: Sequence[str], *, user: str = "") -> Output:  # noqa: ARG002 # as the engine's
        self.ran.append(command)
        program = self.folder / command[0]
        if not program.exists():
            raise AnswerError(f'Docker says: exec: "{command[0]}": not found in $PATH')
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={"PATH": str(self.folder)},
            cwd="/",
        )
        said = done.stderr.decode("utf-8", "replace").strip()
        return Output(done.returncode, done.stdout, said)


def here(program: str) -> str:
    """Where this machine has it; Python as this one, since the one found may be a script."""
    found = sys.executable if program == "python3" else shutil.which(program)
    if found is None:
        pytest.skip(f"this machine has no {program}")
    return os.path.realpath(found)


FETCHING: Mapping[str, Mapping[str, str]] = {
    "curl": {"curl": "curl"},
    "wget": {"wget": "wget"},
    "python3": {"python3": "python3"},
    "bash": {"bash": "bash", "timeout": "timeout", "cat": "cat"},
}
# Busybox's shell has a wget of its own, which is found before the others.
IMAGES = [(shell, tool) for shell in ("dash", "bash") for tool in FETCHING] + [("busybox", "curl")]


@pytest.fixture(params=IMAGES, ids="-".join)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    shell, tool = request.param
    programs = {"sh": shell, **FETCHING[tool]}
    return Image(tmp_path / "image", {name: here(path) for name, path in programs.items()})


@pytest.fixture
def curl(tmp_path: Path) -> Image:
    return Image(tmp_path / "image", {"sh": here("sh"), "curl": here("curl")})


class Server(ThreadingHTTPServer):
    """Answers each path as `pages` say, with a body or by what is to be done, and else 404."""

    daemon_threads = True

    def __init__(self, pages: "Pages") -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages = pages
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def port(self) -> int:
        return self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        # GNU's wget sends a bracket as it is, whichever way it was written.
        self.server.asked.append(unquote(self.path))
        page = self.server.pages.get(unquote(self.path))
        if callable(page):
            page(self)
        elif page is None:
            self.send_error(404)
        else:
            self.answer(page, len(page))

    def answer(self, body: bytes, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


Misbehaviour = Callable[[Handler], None]
Pages = Mapping[str, bytes | Misbehaviour]
Serving = Callable[[Pages], Server]


@pytest.fixture
def serving() -> Iterator[Serving]:
    started: list[Server] = []

    def start(pages: Pages) -> Server:
        server = Server(pages)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.closing.set()
        server.shutdown()
        server.server_close()


def breaks_off(handler: Handler) -> None:
    handler.answer(b"half", 8)


def hangs(handler: Handler) -> None:
    handler.server.closing.wait(30)


def dawdles(handler: Handler) -> None:
    time.sleep(0.6)
    handler.answer(b"late", 4)


Told = Mapping[str, bytes | str]


def told(get: Get, paths: Sequence[str]) -> Told:
    """Each page or what was said instead; none after one that hung."""
    found: dict[str, bytes | str] = {}
    for path in paths:
        try:
            found[path] = get(path)
        except HungError as error:
            found[path] = f"hung: {error}"
            break
        except CollectError as error:
            if not found:
                raise
            found[path] = f"{type(error).__name__}: {error}"
    return found


def by_exec_of(
    engine: object,
    ports: Sequence[int],
    paths: Sequence[str],
    ahead: Sequence[str],
    seconds: float,
) -> Told:
    way = ways.ByExec(engine, "c", ports, Deadline(60, seconds))  # type: ignore[arg-type] # enough of an engine
    return way.read(lambda get: told(get, paths), ahead)


def together(
    engine: object, ports: Sequence[int], paths: Sequence[str], seconds: float = 5
) -> Told:
    return by_exec_of(engine, ports, paths, paths, seconds)


def one_by_one(
    engine: object, ports: Sequence[int], paths: Sequence[str], seconds: float = 5
) -> Told:
    return by_exec_of(engine, ports, paths, (), seconds)


def refusing_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


HOSTILE: Mapping[str, bytes] = {
    "/first": b'{"version": "1"}\n',
    "/page?format=json&filter=^(a|b)\\.$'": bytes(range(256)) * 999,
    "/empty": b"",
    "/ends": b"\n\n\n",
    "/frames": b"0123456789abcdef0123456789abcdef 0\n\n0123456789abcdef0123456789abcdef\n",
    "/shell": b"$(exit 3) `exit 3` \"'\\n%s%n\x00",
    "/last": b"no end of line",
}


def test_one_exec_brings_every_page_as_it_is(image: Image, serving: Serving) -> None:
    """Whatever is in them; and each is asked for once, in turn."""
    server = serving(HOSTILE)
    found = together(image, [server.port], [quote(path, safe="/?=&") for path in HOSTILE])
    assert list(found.values()) == list(HOSTILE.values())
    assert [command[0] for command in image.ran] == ["sh"]
    assert server.asked == list(HOSTILE)


def test_what_is_wrong_with_a_page_is_told_as_of_one_alone(image: Image, serving: Serving) -> None:
    """A 404 and an answer that broke off cost themselves and no other page."""
    pages: Pages = {"/first": b"1", "/half": breaks_off, "/second": b"2", "/third": b"3"}
    paths = ["/first", "/none", "/second", "/half", "/third"]
    server = serving(pages)
    found = together(image, [server.port], paths)
    # curl ends with the first page that fails: the others are asked for by another.
    execs = 3 if (image.folder / "curl").exists() else 1
    assert [command[0] for command in image.ran] == ["sh"] * execs
    assert server.asked == paths
    assert found == one_by_one(image, [server.port], paths)
    assert {path: page for path, page in found.items() if isinstance(page, bytes)} == {
        "/first": b"1",
        "/second": b"2",
        "/third": b"3",
    }


def test_who_hangs_is_not_asked_on(image: Image, serving: Serving) -> None:
    """The pages before are there, and the one that hung was asked for once."""
    paths = ["/first", "/hung", "/second", "/third"]
    server = serving({"/first": b"1", "/hung": hangs, "/second": b"2", "/third": b"3"})
    found = together(image, [server.port], paths, seconds=2)
    assert found["/first"] == b"1"
    assert server.asked[:2] == paths[:2]
    said = found["/hung"]
    assert isinstance(said, str)
    if said.startswith("hung"):
        assert list(found) == server.asked == paths[:2]
        assert [command[0] for command in image.ran] == ["sh"]
    else:
        # GNU's wget does not tell: the others are asked for by another exec.
        assert "exit code 4" in said
        assert server.asked == paths
        assert [command[0] for command in image.ran] == ["sh", "sh"]


def test_who_hangs_at_once_is_hung(curl: Image, serving: Serving) -> None:
    """No page, no other tool, no other port."""
    server = serving({"/page": hangs})
    ports = [server.port, refusing_port()]
    way = ways.ByExec(curl, "c", ports, Deadline(60, 1))  # type: ignore[arg-type] # enough of an engine
    with pytest.raises(HungError):
        way.read(page, ["/page", "/second"])
    assert server.asked == ["/page"]
    assert [command[0] for command in curl.ran] == ["sh"]


def test_the_port_is_found_by_the_same_exec(image: Image, serving: Serving) -> None:
    """As long as the program says that it was refused."""
    server = serving({"/first": b"1", "/second": b"2"})
    found = together(image, [refusing_port(), server.port], ["/first", "/second"])
    assert found == {"/first": b"1", "/second": b"2"}
    assert server.asked == ["/first", "/second"]
    # GNU's wget does not say so: the next port is asked by a second.
    execs = 2 if (image.folder / "wget").exists() else 1
    assert [command[0] for command in image.ran] == ["sh"] * execs


def test_what_answers_the_first_page_with_an_error_is_asked_no_more(
    curl: Image, serving: Serving
) -> None:
    """It is not who was looked for: at the next port somebody else may be."""
    stranger = serving({"/second": b"x"})
    server = serving({"/first": b"1", "/second": b"2"})
    found = together(curl, [stranger.port, server.port], ["/first", "/second"])
    assert found == {"/first": b"1", "/second": b"2"}
    assert stranger.asked == ["/first"]
    assert [command[0] for command in curl.ran] == ["sh", "sh"]


def test_a_broken_program_gives_way_to_the_next(tmp_path: Path, serving: Serving) -> None:
    """As one whose libraries are missing; the next brings all by one exec too."""
    image = Image(tmp_path / "image", {name: here(name) for name in ("sh", "wget")})
    broken = image.folder / "curl"
    broken.write_text("#!/bin/sh\nexit 127\n")
    broken.chmod(0o755)
    server = serving({"/first": b"1", "/second": b"2"})
    found = together(image, [server.port], ["/first", "/second"])
    assert found == {"/first": b"1", "/second": b"2"}
    assert [command[0] for command in image.ran] == ["sh", "curl", "sh"]


TOO_OLD = """
case $* in *--fail-early*) echo "curl: option --fail-early: is unknown" >&2; exit 2 ;; esac
"""
ONLY_SO_CALLED = """
for each in "$@"; do
  shift
  case $each in http:*) set -- "$@" "$each" ;; esac
done
set -- -sS -f "$@"
"""


@pytest.mark.parametrize("instead", [TOO_OLD, ONLY_SO_CALLED])
def test_a_curl_that_cannot_take_several_pages_takes_one(
    tmp_path: Path, serving: Serving, instead: str
) -> None:
    """It is found out by the first exec."""
    image = Image(tmp_path / "image", {"sh": here("sh")})
    program = image.folder / "curl"
    program.write_text(f'#!/bin/sh\n{instead}\nexec {here("curl")} "$@"\n')
    program.chmod(0o755)
    server = serving(PAGES)
    assert together(image, [server.port], list(PAGES)) == PAGES
    assert [command[0] for command in image.ran] == ["sh", "curl", "curl", "curl"]


def test_what_was_not_expected_is_asked_alone(curl: Image, serving: Serving) -> None:
    """And so is what is asked again."""
    server = serving({"/first": b"1", "/second": b"2", "/other": b"3"})
    paths = ["/first", "/other", "/second", "/first"]
    assert len(by_exec_of(curl, [server.port], paths, ["/first", "/second"], 5)) == 3
    assert [command[0] for command in curl.ran] == ["sh", "curl", "curl"]
    assert server.asked == ["/first", "/second", "/other", "/first"]


def test_an_image_without_a_shell_costs_an_exec_a_page(tmp_path: Path, serving: Serving) -> None:
    """By whatever it has, as distroless images have one program."""
    image = Image(tmp_path / "image", {"python3": here("python3")})
    server = serving(HOSTILE)
    assert together(image, [server.port], list(HOSTILE)) == HOSTILE
    tried = ["sh", "curl", "wget", "pilot-agent"]
    assert [command[0] for command in image.ran] == tried + ["python3"] * len(HOSTILE)


def test_no_page_is_begun_after_the_time_of_the_run(tmp_path: Path, serving: Serving) -> None:
    """Nothing is left behind in the container that goes on asking."""
    image = Image(tmp_path / "image", {name: here(name) for name in ("sh", "wget")})
    paths = [f"/{number}" for number in range(6)]
    server = serving(dict.fromkeys(paths, dawdles))
    batch = Batch(paths)
    printed = image.execute("c", batch.command([server.port], 9, 1)).out
    assert set(server.asked) < set(paths)
    assert [place.path for place in batch.answers(printed)] == server.asked


def test_each_command_has_a_boundary_of_its_own() -> None:
    """No answer can know it before."""
    assert len({Batch(["/first"]).boundary for _ in range(100)}) == 100


class Cut:
    """An engine whose first exec breaks off after so many bytes, with an error of some kind."""

    def __init__(self, image: Image, after: int, error: CollectError) -> None:
        self.image = image
        self.after = after
        self.error = error
        self.whole = b""

    def execute(self, container: str, command: Sequence[str], *, user: str = "") -> Output:
        output = self.image.execute(container, command, user=user)
        if len(self.image.ran) > 1:
            return output
        self.whole = output.out
        self.error.came = output.out[: self.after]
        raise self.error


PAGES = {"/first": b"1" * 40, "/second": b"", "/third": b"3\n" * 20}


def test_what_came_before_it_broke_off_is_not_asked_again(curl: Image, serving: Serving) -> None:
    """Wherever that was; and what did not come whole is asked for alone."""
    server = serving(PAGES)
    whole = Cut(curl, 10**6, AnswerError("it printed too much"))
    assert together(whole, [server.port], list(PAGES)) == PAGES
    assert server.asked == list(PAGES)
    asked_again = set()
    for after in range(len("curl\n"), len(whole.whole), 7):
        server.asked.clear()
        curl.ran.clear()
        cut = Cut(curl, after, AnswerError("it printed too much"))
        assert together(cut, [server.port], list(PAGES)) == PAGES
        again = server.asked[len(PAGES) :]
        assert again == list(PAGES)[len(PAGES) - len(again) :]
        asked_again.add(len(again))
    assert asked_again >= {1, 2, 3}


def test_what_is_not_known_to_be_whole_is_no_page(image: Image, serving: Serving) -> None:
    """Wherever it is cut: neither is what broke off by itself."""
    server = serving({"/first": b"1" * 40, "/half": breaks_off, "/third": b"3"})
    paths = ["/first", "/half", "/third"]
    batch = Batch(paths)
    output = image.execute("c", batch.command([server.port], 5, 60))
    # Nothing was missed that is not in the image.
    assert (output.code, output.err) == (0, "")
    printed = output.out
    for after in range(len(printed) + 1):
        for place, answer in batch.answers(printed[:after]).items():
            # bash prints the whole answer, whose length tells.
            if answer is not None and answer.code == 0 and place.program != "bash":
                assert answer.out == server.pages[place.path]


def test_an_engine_that_hangs_within_a_page_is_not_asked_again(
    curl: Image, serving: Serving
) -> None:
    """As pilot-agent may, which has no limit of its own."""
    server = serving(PAGES)
    whole = Cut(curl, 10**6, AnswerError("it printed too much"))
    together(whole, [server.port], list(PAGES))
    curl.ran.clear()
    server.asked.clear()
    within = whole.whole.index(b"3\n3\n") + 3
    cut = Cut(curl, within, HungError("Docker sent nothing"))
    found = together(cut, [server.port], list(PAGES))
    assert found == {**PAGES, "/third": "hung: Docker sent nothing"}
    assert server.asked == list(PAGES)


@pytest.mark.parametrize(
    "printed",
    [b"", b"curl\n", b"B", b"B\n", b"B curl x 0\nB 0\nB\n", b"B curl 1 9\nB 0\nB\n", b"B \xff\n"],
)
def test_what_is_no_answer_is_none(printed: bytes) -> None:
    """A shell that prints something else brings no page."""
    assert Batch(["/first"], boundary="B").answers(printed) == {}


FRAGMENTS = [
    b"B",
    b" curl 1 0\n",
    b" curl 1 1\n",
    b" wget 1 0\n",
    b" 0\n",
    b" 18\n",
    b" 137\n",
    b"x",
]


@given(st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3)))
def test_whatever_is_printed_gives_answers_or_none(parts: Sequence[bytes]) -> None:
    """Of the paths that were asked for, and nothing else."""
    for place, answer in Batch(["/a"], boundary="B").answers(b"".join(parts)).items():
        assert place.path == "/a"
        assert answer is None or answer.out in b"".join(parts)


def test_answers_are_told_from_where_they_are() -> None:
    """With what the program said, and None where the end is missing."""
    printed = b"curl\nB curl 1 0\n{}B 0\nB\nB curl 1 1\nB 22\ncurl: (22)B\nB curl 1 2\nhal"
    assert Batch(["/a", "/b", "/c"], boundary="B").answers(printed) == {
        Place("curl", 1, "/a"): Output(0, b"{}", ""),
        Place("curl", 1, "/b"): Output(22, b"", "curl: (22)"),
        Place("curl", 1, "/c"): None,
    }


# ---------------------------------------------------------------- turns


def test_proxies_of_this_machine_are_read_in_turns(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    """As many at once as have cores, and one more."""
    monkeypatch.setattr(ways, "_TURNS", threading.BoundedSemaphore(1))
    monkeypatch.setattr(ways, "_POLITE", 60)
    began, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def first(_get: Get) -> None:
        began.set()
        go_on.wait(60)
        order.append("first")

    def second(_get: Get) -> None:
        order.append("second")

    threads = [threading.Thread(target=inside(monkeypatch, deadline).read, args=(first,))]
    threads[0].start()
    began.wait(60)
    threads.append(threading.Thread(target=inside(monkeypatch, deadline).read, args=(second,)))
    threads[1].start()
    go_on.set()
    for each in threads:
        each.join()
    assert order == ["first", "second"]


def test_nobody_waits_for_the_turn_of_who_hangs(
    monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    turns = threading.BoundedSemaphore(1)
    monkeypatch.setattr(ways, "_TURNS", turns)
    monkeypatch.setattr(ways, "_POLITE", 0.01)
    way = inside(monkeypatch, deadline)
    assert way.read(lambda _get: way.read(lambda _get: "read meanwhile")) == "read meanwhile"
    assert turns.acquire(blocking=False), "every turn was given back"


def inside(monkeypatch: pytest.MonkeyPatch, deadline: Deadline) -> ways.ByNamespace:
    """A way into a container, as far as it is about turns."""
    monkeypatch.setattr(namespace, "check_reachable", lambda *_: None)
    monkeypatch.setattr(namespace, "within", lambda _pid, work, _patience: work())
    snapshot = open_snapshot(RECORDING)
    return ways.ByNamespace(DockerEngine.load(snapshot).containers[0], (15000,), deadline)
