"""What images have to fetch with: how each program is asked, for one page or for several."""

import io
import re
import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
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

    @property
    def in_shell(self) -> str:
        """The same for a shell, which has what is asked in variables of those names."""
        quoted = (shlex.quote(word) for word in self.words)
        return " ".join(_TO_FILL_IN.sub(r"""'"$\1"'""", word) for word in quoted)

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

_URL: Final = "http://127.0.0.1:$port/$page"

TOOLS: Final = (
    # curl: 7 no connection, 28 too late.
    Tool(
        "curl",
        ("curl", "-sS", "-f", "-g", "--noproxy", "*", "--max-time", "$seconds", _URL),
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


def _parse(answer: bytes) -> bytes:
    """The body of a whole HTTP answer, its length and chunks checked."""
    response = HTTPResponse(_Recorded(answer))  # type: ignore[arg-type] # it only calls makefile
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


_HUNG: Final = _pattern({tool.program: tool.hung for tool in TOOLS})
_NOT_THERE: Final = _pattern({tool.program: tool.refused for tool in TOOLS})


# The body goes straight through, since a variable would lose bytes of it; what the program says
# beside it comes with its exit code. The clock is the kernel's own, for which no program is run.
# Where this stops early, nothing is lost: what it did not ask is asked alone.
_SCRIPT: Final = f"""
boundary=$1 tool=$2 ports=$3 seconds=$4 left=$5
shift 5
for each in {" ".join(tool.program for tool in TOOLS)}; do
  command -v $each >/dev/null && echo $each && tool=${{tool:-$each}}
done
[ "$tool" ] || exit 0

ask() {{
  case $tool in
    {" ;; ".join(f"{tool.program}) {tool.in_shell}" for tool in TOOLS)} ;;
  esac
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
    said=$(ask 2>&1 >&3 3>&-)
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
    number=$((number + 1))
  done
  exit 0
done
exit 0
"""


class Batch(msgspec.Struct, frozen=True):
    """Pages that one command asks for, one after the other: what it prints, and from where.

    First it prints which programs there are. Then it asks at each port for the first page, until
    it is not refused there, and for the others where it gets the first; whoever hangs is the last
    that it asks. Each answer stands between lines with a boundary that no answer can know.
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
            *("sh", "-c", _SCRIPT, "meshdoctor"),
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
        """What each command alone would have printed; None where this broke off."""
        return dict(self._answers(printed))

    def _answers(self, printed: bytes) -> Iterator[tuple[Place, Output | None]]:
        _, *parts = printed.split(self.boundary.encode())
        while parts:
            head, gap, body = parts[0].partition(b"\n")
            place = self._place(head) if gap else None
            if place is None:
                return
            if len(parts) < 3:  # noqa: PLR2004 # the answer, its exit code, and the end
                yield place, None
                return
            code, _, said = parts[1].partition(b"\n")
            yield place, Output(int(code), body, said.decode("utf-8", "replace").strip())
            parts = parts[3:]

    def _place(self, head: bytes) -> Place | None:
        try:
            program, port, number = head.decode().split()
            return Place(program, int(port), self.paths[int(number)])
        except (ValueError, IndexError):
            return None
