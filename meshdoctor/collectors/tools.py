"""What images have to fetch with: how each program is asked, for one page or for several."""

import io
import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from itertools import groupby
from typing import Final

import msgspec

from meshdoctor.collectors.interface import (
    AnswerError,
    HungError,
    NotAnsweringError,
    Output,
    RefusedError,
)
from meshdoctor.evidence import access

_TO_FILL_IN: Final = re.compile(r"\$(port|page|seconds)\b")


class Tool(msgspec.Struct, frozen=True):
    """A program that can fetch, how it is asked, and which exit codes say what went wrong.

    Among the `words` of its command line $port, $page (a path without its slash) and $seconds
    stand for what is asked.
    """

    program: str
    words: Sequence[str]
    refused: frozenset[int] = frozenset()
    hung: frozenset[int] = frozenset()
    # True where the whole answer comes out, head and all, and not only its body.
    raw: bool = False

    def __str__(self) -> str:
        return self.program

    def command(self, port: int, path: str, seconds: float) -> Sequence[str]:
        """The command line for one page."""
        values = {
            "port": str(port),
            "page": path.removeprefix("/"),
            "seconds": whole_seconds(seconds),
        }
        return [_TO_FILL_IN.sub(lambda found: values[found[1]], word) for word in self.words]

    def body(self, output: Output) -> bytes:
        """The body of the answer. Raises CollectError for what the exit code says."""
        said = output.err.splitlines()[-1][:160] if output.err else f"exit code {output.code}"
        if output.code in self.hung or (output.code != 0 and _LATE in output.err):
            raise HungError(f"{access.HANGS} did not answer ({said})")
        if output.code in self.refused or (output.code != 0 and _REFUSED in output.err):
            raise RefusedError(access.REFUSED)
        if output.code in _NOT_STARTED:
            raise NotAnsweringError(said)
        if output.code != 0:
            raise AnswerError(said)
        return _parse(output.out) if self.raw else output.out


def _in_shell(words: Iterable[str]) -> str:
    """The same for a shell, which has what is asked in variables of those names."""
    quoted = (_TO_FILL_IN.sub(r"""'"$\1"'""", shlex.quote(word)) for word in words)
    return " ".join(word.replace("''", "") for word in quoted)


# What Docker reports for a command that is not there, or that may not be run.
_NOT_STARTED: Final = frozenset({-1, 126, 127, 128})
_LATE: Final = "timed out"
_REFUSED: Final = "refused"

_BASH: Final = r"""
exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 7
printf 'GET /%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3; cat <&3
"""

_PYTHON: Final = """
import http.client, sys
port, page, seconds = sys.argv[1:]
server = http.client.HTTPConnection("127.0.0.1", int(port), timeout=int(seconds))
try:
    server.request("GET", "/" + page)
    answer = server.getresponse()
    if answer.status != 200:
        sys.exit(f"{answer.status} {answer.reason}")
    sys.stdout.buffer.write(answer.read())
except TimeoutError as error:
    print(error, file=sys.stderr); sys.exit(28)
except OSError as error:
    print(error, file=sys.stderr); sys.exit(7)
"""

# -g: a bracket in a path is none of curl's own.
_CURL: Final = ("-sS", "-f", "-g", "--noproxy", "*", "--max-time", "$seconds")
_URL: Final = "http://127.0.0.1:$port/$page"

TOOLS: Final = (
    # curl: 7 no connection, 28 too late.
    Tool(
        "curl",
        ("curl", *_CURL, _URL),
        refused=frozenset({7}),
        hung=frozenset({28}),
    ),
    # These are the options that GNU's and busybox's have in common; GNU's would try 20 times.
    # GNU's says 4 for every fault of the network, busybox's 1 for every fault: words must tell.
    Tool("wget", ("wget", "-q", "-t", "1", "-T", "$seconds", "-O", "-", _URL)),
    # It has a port of its own, and no limit.
    Tool("pilot-agent", ("pilot-agent", "request", "GET", "$page")),
    Tool(
        "python3",
        ("python3", "-c", _PYTHON, "$port", "$page", "$seconds"),
        refused=frozenset({7}),
        hung=frozenset({28}),
    ),
    # timeout: 124, busybox's 143.
    Tool(
        "bash",
        ("timeout", "$seconds", "bash", "-c", _BASH, "bash", "$port", "$page"),
        refused=frozenset({7}),
        hung=frozenset({124, 143}),
        raw=True,
    ),
)
"""In the order in which they are tried; what bash prints must be taken apart here."""


def whole_seconds(seconds: float) -> str:
    """As these programs take them: 1 at least."""
    return str(max(1, round(seconds)))


class _Recorded:
    """What `HTTPResponse` asks of a socket, over bytes that are here already."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._answer)


def response_of(answer: bytes) -> HTTPResponse:
    """A whole HTTP answer, to be begun and read as one that comes from a socket."""
    return HTTPResponse(_Recorded(answer))  # type: ignore[arg-type] # it only calls makefile


def _parse(answer: bytes) -> bytes:
    """The body of a whole HTTP answer, its length and chunks checked."""
    response = response_of(answer)
    try:
        response.begin()
        body = response.read()
    except (HTTPException, ValueError) as error:
        raise AnswerError(f"its answer is no whole HTTP answer: {error!r}") from error
    if response.status != 200:  # noqa: PLR2004 # OK
        raise AnswerError(f"it answers {response.status} {response.reason}", response.status)
    return body


# ---------------------------------------------------------------- several at once


class Place(msgspec.Struct, frozen=True):
    """Where one answer is from: by which program, at which port, for which path."""

    program: str
    port: int
    path: str


def _pattern(codes: Mapping[str, frozenset[int]]) -> str:
    """These exit codes for `case`, each behind its program."""
    return " | ".join(f"{name}:{code}:*" for name in codes for code in sorted(codes[name]))


_HUNG_CODES: Final = {tool.program: tool.hung for tool in TOOLS}
_HUNG: Final = _pattern(_HUNG_CODES)
_NOT_THERE: Final = _pattern({tool.program: tool.refused for tool in TOOLS})


# One process of it may fetch all, since it can be told to print what stands between two pages.
_CHAINING: Final = "curl"
_ASKING: Final = "".join(
    f"\n    {tool.program}) {_in_shell(tool.words)} ;;"
    for tool in TOOLS
    if tool.program != _CHAINING
)
# As what ended without a word between two pages: one before 7.52 (2016) says 2 to --fail-early.
_NO_CHAIN: Final = frozenset({0, 2})
# From here on exit codes are the shell's: what it runs by a name was killed, or not started. That
# may be another program than the one which a command of its own would be.
_OF_THE_SHELL: Final = 126

# The body goes straight through, since a variable would lose bytes of it; what the program says
# beside it comes with its exit code. With -N curl passes on what it has: we wait no longer for a
# page here than for one alone. The clock is the kernel's own, for which no program is run. Where
# this stops early, nothing is lost: what it did not ask is asked by another command.
SCRIPT: Final = f"""
boundary=$1 tool=$2 ports=$3 seconds=$4 left=$5
shift 5
for each in {" ".join(tool.program for tool in TOOLS)}; do
  command -v $each >/dev/null && echo $each && tool=${{tool:-$each}}
done
[ "$tool" ] || exit 0

ask() {{
  case $tool in
    {_CHAINING}) chain "$@" ;;{_ASKING}
  esac
}}
chain() {{
  next= after=0
  for page in "$@"; do
    shift
    after=$((after + 1))
    set -- "$@" $next -N {_in_shell(_CURL)} {_in_shell([_URL])} \\
      -w "$boundary 0\\n$boundary\\n$boundary $tool $port $after\\n"
    next=--next
  done
  curl --fail-early "$@"
}}
clock() {{
  read -r now _ 2>/dev/null </proc/uptime && now=${{now%%.*}} || now=0
}}

exec 3>&1
clock
end=$((now + left))
for port in $ports; do
  number=0
  for page in "$@"; do
    begun=$now
    left=$((end - now))
    [ $left -gt 0 ] || exit 0
    [ $seconds -le $left ] || seconds=$left
    printf '%s %s %s %s\\n' $boundary $tool $port $number
    said=$(ask "$@" 2>&1 >&3 3>&-)
    code=$?
    printf '%s %s\\n%s%s\\n' $boundary $code "$said" $boundary
    clock
    [ $((now - begun)) -lt $seconds ] || exit 0
    if [ $code != 0 ]; then
      case $tool:$code:$said in
        {_HUNG} | *'{_LATE}'*) exit 0 ;;
        {_NOT_THERE} | *{_REFUSED}*) [ $number = 0 ] && continue 2; exit 0 ;;
      esac
      [ $number != 0 ] || exit 0
    fi
    [ $tool != {_CHAINING} ] || exit 0
    number=$((number + 1))
  done
  exit 0
done
exit 0
"""
"""For any `sh`. It starts nothing but a program that fetches, and writes no file."""


class Batch(msgspec.Struct, frozen=True):
    """Pages that one command asks for, one after the other: what it prints, and from where.

    First it prints which programs there are. Then it asks at each port for the first page, until
    it is not refused there, and for the others where it gets the first; whoever hangs is the last
    that it asks. Each answer stands between lines with a boundary that no answer can know.

    curl asks for all by one process. It ends with the first page that fails, and has then already
    said that this one ended and that another begins.
    """

    paths: Sequence[str]
    boundary: str = msgspec.field(default_factory=lambda: secrets.token_hex(16))

    def command(
        self, ports: Sequence[int], seconds: float, left: float, program: str = ""
    ) -> Sequence[str]:
        """The command line, with `seconds` for each page and `left` for all.

        Without a `program` the first is taken that is there; without paths none is started.
        """
        return [
            *("sh", "-c", SCRIPT, "meshdoctor"),
            *(self.boundary, program, " ".join(map(str, ports))),
            *(whole_seconds(seconds), whole_seconds(left)),
            *(path.removeprefix("/") for path in self.paths),
        ]

    def programs(self, printed: bytes) -> Sequence[Tool]:
        """Those of TOOLS that it found."""
        listed, _, _ = printed.partition(self.boundary.encode())
        there = {word.rpartition("/")[2] for word in listed.decode("utf-8", "replace").split("\n")}
        return tuple(tool for tool in TOOLS if tool.program in there)

    def begun(self, printed: bytes) -> bool:
        """True where it came to ask for a page."""
        return self.boundary.encode() in printed

    def answers(self, printed: bytes) -> Mapping[Place, Output | None]:
        """What each command alone would have printed, in turn; None where that broke off."""
        found: dict[Place, Output | None] = {}
        for (program, port), each in groupby(self._frames(printed), lambda frame: frame.asked):
            frames = list(each)
            outputs = _of_chain(frames) if program == _CHAINING else _of_each(frames)
            for number, output in outputs.items():
                if number < len(self.paths):
                    found[Place(program, port, self.paths[number])] = output
        return found

    def _frames(self, printed: bytes) -> Iterator["_Frame"]:
        boundary = self.boundary.encode()
        _, *parts = printed.split(boundary)
        while parts:
            # What was asked, and the body; the exit code, and what was said; the end.
            head, _, body = parts[0].partition(b"\n")
            has_body = not boundary.startswith(body)
            try:
                program, port, number = head.decode().split()
                output = _output(program, body, parts[1]) if len(parts) >= _WHOLE else None
                yield _Frame((program, int(port)), int(number), output, has_body)
            except ValueError:
                return
            parts = parts[_WHOLE:]


_WHOLE: Final = 3


class _Frame(msgspec.Struct, frozen=True):
    """One answer. `output` is None where it broke off; `has_body` if more than a boundary came."""

    asked: tuple[str, int]
    number: int
    output: Output | None
    has_body: bool


def _output(program: str, body: bytes, end: bytes) -> Output | None:
    first, _, said = end.partition(b"\n")
    code = int(first)
    if code >= _OF_THE_SHELL and code not in _HUNG_CODES.get(program, ()):
        return None
    return Output(code, body, said.decode("utf-8", "replace").strip())


Outputs = dict[int, Output | None]
"""By the number of the page."""


def _of_each(frames: Sequence[_Frame]) -> Outputs:
    return {frame.number: frame.output for frame in frames}


def _of_chain(frames: Sequence[_Frame]) -> Outputs:
    """Only the last has curl's exit code, which is that of the page before, if there is one."""
    *before, last = frames
    outputs = _of_each(before)
    output = last.output
    if not before:
        is_known = output is not None and output.code not in _NO_CHAIN
        outputs[last.number] = output if is_known else None
    elif output is None:
        # It broke off within this page or before it.
        outputs[last.number] = None
        if not last.has_body:
            outputs[last.number - 1] = None
    elif output.code != 0:
        outputs[last.number - 1] = output
    return outputs
