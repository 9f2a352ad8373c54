"""What a collecting run is told, what it shares between its workers, and how it ends."""

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import urlsplit

import msgspec

from meshdoctor.collectors.spool import Spool
from meshdoctor.evidence.interface import NOT_JSON, Problem
from meshdoctor.snapshot.documents import Document, Snapshot
from meshdoctor.snapshot.redaction import RedactionError, redact, redact_text

P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")

MAX_BODY: Final = 256 * 2**20
"""The largest answer that is read, in bytes: as much as a snapshot can hold in one document."""


class NamedEngine(msgspec.Struct, frozen=True):
    """A Docker engine as somebody names it: by its address, or by a context of the command's."""

    host: str | None = None
    context: str | None = None

    def __str__(self) -> str:
        return redact_text(self.host or self.context or "")

    @property
    def short(self) -> str:
        """What its containers are told apart by where engines have one name."""
        if self.host is None:
            return self.context or ""
        parts = urlsplit(self.host)
        return parts.netloc.rpartition("@")[2] or parts.path.strip("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Where to look and how long. What is None is taken from the environment, else discovered.

    Times are in seconds. `engines` are for a mesh on several Docker hosts, which are read side by
    side, each with all of that time; of one, `docker_host` or `docker_context` is enough.
    `envoys` are admin addresses given by hand, by the name that the sidecar has in Docker or
    shall have in the report. With `whole` false, an Envoy is not asked again for what it told in
    another form: enough for every check, too little for a recording.
    """

    docker_host: str | None = None
    docker_context: str | None = None
    engines: tuple[NamedEngine, ...] = ()
    docker_tls_verify: bool | None = None
    docker_cert_path: Path | None = None

    consul: str | None = None
    consul_token: str | None = field(default=None, repr=False)
    consul_token_file: Path | None = None
    consul_ca_cert: Path | None = None
    consul_ca_path: Path | None = None
    consul_client_cert: Path | None = None
    consul_client_key: Path | None = None
    consul_tls_server_name: str | None = None
    consul_verify: bool | None = None
    consul_datacenter: str | None = None
    consul_namespace: str | None = None

    pilot: str | None = None
    apiserver: str | None = None
    kubeconfig: Path | None = None
    envoys: Mapping[str, str] = field(default_factory=dict)
    helper_image: str | None = None

    deadline: float = 60.0
    request_timeout: float = 5.0
    # Envoy writes a dump on one thread: more workers than that only pay off while Docker's and
    # Consul's many small answers are fetched.
    workers: int = 8
    logs_tail: int = 200
    whole: bool = True
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def of(self, engine: NamedEngine) -> "Options":
        """The same for one engine alone."""
        return replace(self, engines=(), docker_host=engine.host, docker_context=engine.context)


class CollectError(Exception):
    """A source cannot be read.

    CollectError
    ├── NotAnsweringError   nothing answered: another way to the same source may do
    │   ├── RefusedError    nothing listens there
    │   └── HungError       it took the connection, and then no answer came in time
    ├── AnswerError         it answered, and not with what was asked for
    │   └── GoneError       there is no such container, network, image, or exec any more
    └── OutOfTimeError      the run's deadline passed, or the run was called off

    The message is for people, without the name of the document it concerns. `came` is what a
    command in a container had printed before that.
    """

    came: bytes = b""


class NotAnsweringError(CollectError):
    pass


class RefusedError(NotAnsweringError):
    pass


class HungError(NotAnsweringError):
    pass


class AnswerError(CollectError):
    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class GoneError(AnswerError):
    pass


class OutOfTimeError(CollectError):
    pass


def is_json(raw: bytes, form: object = msgspec.Raw) -> bool:
    """Whether somebody answered with JSON of that form, by default of any: else it is another."""
    try:
        msgspec.json.decode(raw, type=form)
    except NOT_JSON:
        return False
    return True


def words_of(error: BaseException) -> str:
    """The system's own words for it where there are any."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


class Output(msgspec.Struct, frozen=True):
    """What a command in a container printed, and its exit code."""

    code: int
    out: bytes
    err: str


class Deadline:
    """How long the run may still take, and each request within it."""

    def __init__(self, seconds: float, request: float) -> None:
        self.seconds = seconds
        self._request = request
        self._end = time.monotonic() + seconds
        self._over = threading.Event()

    def remaining(self) -> float:
        """Seconds left, 0 or more."""
        return 0.0 if self._over.is_set() else max(0.0, self._end - time.monotonic())

    def request(self) -> float:
        """Seconds that one request may wait for its next answer. Raises OutOfTimeError."""
        remaining = self.remaining()
        if remaining <= 0:
            raise OutOfTimeError(self.reason())
        return min(self._request, remaining)

    def reason(self) -> str:
        """Why no more is asked."""
        return (
            f"no answer within the {self.seconds:g} seconds that the whole run may take: "
            "give it longer with --timeout"
        )

    def end(self) -> None:
        """Let no further request begin."""
        self._over.set()


class Workers:
    """A bounded number of threads, and the tasks they have still to do.

    Not `ThreadPoolExecutor`: the interpreter waits for its threads before it ends, so that one
    hung socket would hold Ctrl-C, or a run past its deadline, for all its timeout. These are
    daemon threads and are left behind.
    """

    def __init__(self, count: int) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._under_way = 0
        self._changed = threading.Condition()
        self._stopped = False
        self._threads = [
            threading.Thread(target=self._work, name=f"collector-{number}", daemon=True)
            for number in range(max(1, count))
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Have it done; tasks may submit further ones but never wait for them."""
        future: Future[T] = Future()

        def task() -> None:
            try:
                if not self._stopped:
                    future.set_result(function(*args, **kwargs))
                else:
                    future.cancel()
            except BaseException as error:  # noqa: BLE001 # it is raised where the result is read
                future.set_exception(error)
            finally:
                with self._changed:
                    self._under_way -= 1
                    self._changed.notify_all()

        with self._changed:
            self._under_way += 1
        self._tasks.put(task)
        return future

    def submit_each(
        self, function: Callable[[K], T], things: Iterable[K], at_once: int
    ) -> "Mapping[K, Future[T]]":
        """Have it done with each of the things, with no more than so many at the same time.

        Whoever is free takes the next, so that one which hangs holds up none of the others.
        """
        futures: dict[K, Future[T]] = {thing: Future() for thing in things}
        waiting = deque(futures.items())

        def take() -> None:
            while not self._stopped:
                try:
                    thing, future = waiting.popleft()
                except IndexError:
                    return
                try:
                    future.set_result(function(thing))
                except BaseException as error:  # noqa: BLE001 # as in `submit`
                    future.set_exception(error)

        for _ in range(min(at_once, len(futures))):
            self.submit(take)
        return futures

    def settle(self, deadline: Deadline) -> bool:
        """Wait until all is done, False if the deadline came first."""
        with self._changed:
            return self._changed.wait_for(lambda: self._under_way == 0, deadline.remaining())

    def stop(self) -> None:
        """Begin nothing more; what is under way is left to end by itself."""
        self._stopped = True
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()


class Recorder:
    """The documents of the run, redacted as they come in, and a reason for each that did not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[str, Document] = {}
        self._redactions: dict[str, int] = {}
        self._absent: dict[str, str] = {}
        self._expected: set[str] = set()
        self._spool = Spool()
        self._closed = False

    def expect(self, *names: str) -> None:
        """Say what a task will record, so that it is missed if the task does not end in time."""
        with self._lock:
            self._expected.update(names)

    def put(self, name: str, raw: bytes) -> None:
        """Record one answer; one that cannot be redacted is not kept."""
        try:
            clean, count = redact(name, raw)
        except RedactionError as error:
            self.absent(name, f"not kept, for it cannot be redacted: {error}")
            return
        document = self._spool.keep(clean)
        with self._lock:
            if self._closed:
                return
            self._documents[name] = document
            self._absent.pop(name, None)
            if count:
                self._redactions[name] = count

    def absent(self, name: str, reason: str) -> None:
        """Record why there is no such document."""
        with self._lock:
            if not self._closed and name not in self._documents:
                self._absent[name] = redact_text(reason)

    def so_far(self) -> Snapshot:
        """What was recorded until now."""
        with self._lock:
            return Snapshot(dict(self._documents))

    def snapshot(self, reason: str, created: str) -> Snapshot:
        """All of it, and nothing after; what was expected is absent for `reason`."""
        with self._lock:
            self._closed = True
            for name in self._expected - self._documents.keys() - self._absent.keys():
                self._absent[name] = reason
            return Snapshot(
                documents=self._documents,
                absent=tuple(Problem(*each) for each in sorted(self._absent.items())),
                created=created,
                redactions=self._redactions,
            )


class Run(msgspec.Struct, frozen=True):
    """One collecting run: what every collector is handed."""

    options: Options
    deadline: Deadline
    workers: Workers
    recorder: Recorder
    say: Callable[[str], None]
    closing: ExitStack = msgspec.field(default_factory=ExitStack)
    """What is to be closed when the run ends."""

    def record(self, name: str, fetch: Callable[[], bytes]) -> bytes | None:
        """Put what `fetch` gives under `name`, or why it gave nothing. None then."""
        try:
            raw = fetch()
        except CollectError as error:
            self.recorder.absent(name, str(error))
            return None
        self.recorder.put(name, raw)
        return raw

    def later(self, name: str, fetch: Callable[[], bytes]) -> "Future[Any]":
        """`record` on one of the workers."""
        self.recorder.expect(name)
        return self.workers.submit(self.record, name, fetch)
