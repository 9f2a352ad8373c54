"""The faults of Consul's own service mesh, each on a real one: in, named, mended as printed.

For each row: nothing is found before, the fault's root is named and every error hangs below it,
every call that is really made ends where `matrix` says, the remedy is carried out as it is
printed, and nothing is found afterwards.
"""

import copy
import itertools
import json
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from meshdoctor.check import Examination
from meshdoctor.collectors import Options, collect
from meshdoctor.diagnosis import Checks, examine
from meshdoctor.findings import Remedy, Severity
from meshdoctor.report.document import Report
from meshdoctor.routing.calls import Calls, Pair, Verdict
from meshdoctor_checks import CHECKS
from tests.connect.conftest import running
from tests.connect.faults import FAULTS
from tests.connect.mesh import ConnectMesh, ask

# This Envoy is newer than this Consul supports, and meshdoctor says so of every state.
ALLOWED: Final = frozenset({"MD708"})
_PATIENCE: Final = 90.0

Step = Callable[[ConnectMesh], None]


def _nothing(_mesh: ConnectMesh) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Row:
    """A fault by name, the check that is to name it, and what its remedy leaves to the reader.

    `unknown` are the calls that nobody can foretell, because their own proxy cannot be read.
    """

    fault: str
    root: str
    by_hand: Step = _nothing
    unknown: frozenset[tuple[str, str]] = frozenset()


ROWS: Final = (
    Row("port-collision", "MD701"),
    Row("port-collision-of-two", "MD701"),
    Row("upstream-misspelt", "MD702"),
    Row("no-instance", "MD702"),
    Row("proxy-dead", "MD703", unknown=frozenset({("pay", "db")})),
    Row("denied-by-intention", "MD704"),
    Row("denied-by-default", "MD704"),
    Row("http-rules-on-tcp", "MD705"),
    Row("http-intention-on-tcp", "MD705"),
    Row("protocols-disagree", "MD706", unknown=frozenset({("web", "api")})),
    Row("foreign-certificate", "MD707"),
    Row("expired-certificate", "MD707"),
    Row("service-dead", "MD211", lambda mesh: mesh.serve("db")),
    Row("without-leader", "MD104", lambda mesh: mesh.start_server(2)),
)


class Meshes:
    """A running mesh for each way to start one; one that a row left broken is not used again."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._running: dict[tuple[bool, int], tuple[ExitStack, ConnectMesh]] = {}

    def get(self, *, acl: bool, servers: int) -> ConnectMesh:
        key = (acl, servers)
        if key not in self._running:
            own = self._stack.enter_context(ExitStack())
            mesh = own.enter_context(running(acl=acl, servers=servers))
            self._running[key] = (own, mesh)
        return self._running[key][1]

    def discard(self, mesh: ConnectMesh) -> None:
        for key, (own, each) in list(self._running.items()):
            if each is mesh:
                del self._running[key]
                own.close()


@pytest.fixture(scope="module")
def meshes() -> Iterator[Meshes]:
    with ExitStack() as stack:
        yield Meshes(stack)


@dataclass(frozen=True, slots=True)
class Seen:
    """What meshdoctor says of the mesh at one moment."""

    report: Report
    pairs: Sequence[Pair]

    @property
    def findings(self) -> frozenset[str]:
        return frozenset(each.code for each in self.report.findings) - ALLOWED

    @property
    def roots(self) -> frozenset[str]:
        """Of all that is worse than an info."""
        return (
            frozenset(
                self.report.finding(each.root).code
                for each in self.report.diagnoses
                if each.severity is not Severity.INFO
            )
            - ALLOWED
        )

    @property
    def told(self) -> str:
        """For the message of a test that fails."""
        lines = [f"{each.severity} {each.code} {each.message}" for each in self.report.findings]
        lines += [
            f"{each.caller} {each.callee}: {each.verdict} {each.reason}" for each in self.pairs
        ]
        return "\n".join(lines)


def look(mesh: ConnectMesh) -> Seen:
    snapshot = collect(mesh.options(), lambda _message: None)
    examination = Examination(snapshot)
    report = examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"}, examination=examination)
    calls = examination.find(Calls)
    return Seen(report, () if calls is None else calls.pairs)


def eventually(mesh: ConnectMesh, wanted: Callable[[Seen], bool], what: str) -> Seen:
    """Look until it is so: Consul and its proxies take their time to hear of a change."""
    end = time.monotonic() + _PATIENCE
    while True:
        seen = look(mesh)
        if wanted(seen):
            return seen
        if time.monotonic() > end:
            raise AssertionError(f"not reached: {what}. Last seen:\n{seen.told}")
        time.sleep(0.5)


def differences(
    mesh: ConnectMesh, seen: Seen, unknown: AbstractSet[tuple[str, str]] = frozenset()
) -> Sequence[str]:
    """Each call really made, where it does not end as the matrix has it."""
    found = []
    for pair in seen.pairs:
        status, who = ask(pair.port)
        match pair.verdict:
            case Verdict.RIGHT:
                agrees = who == pair.callee
            case Verdict.WRONG:
                agrees = who == pair.reached
            case Verdict.NOWHERE:
                agrees = who == ""
            case Verdict.BY_LUCK:
                agrees = who in mesh.services
            case Verdict.UNKNOWN:
                agrees = (pair.caller, pair.callee) in unknown
        if not agrees:
            found.append(
                f"{pair.caller} calls {pair.callee}: {pair.verdict} {pair.reached} predicted "
                f"({pair.reason}), really {status} {who}"
            )
    return found


def remedies(report: Report, code: str) -> Sequence[Remedy]:
    """The root's, of the worst diagnosis with that root: they come the worst first."""
    roots = (report.finding(each.root) for each in report.diagnoses)
    return next(each for each in roots if each.code == code).remedies


def carry_out(mesh: ConnectMesh, remedy: Remedy) -> None:
    """What it prints, in its order: the patch, then the commands but for looking again."""
    _patch(mesh.folder, remedy.patch or "")
    for command in remedy.commands:
        words = shlex.split(command)
        if words[:4] == ["consul", "connect", "envoy", "-sidecar-for"]:
            # It stays, with the options that this mesh's sidecars have; one that runs is ended.
            sidecar = mesh.services[words[4]].sidecar
            if sidecar in mesh.programs:
                mesh.stop_program(sidecar)
            mesh.start_sidecar(words[4], piped=True)
        elif words[0] != "meshdoctor":
            mesh.run(*words)


def _patch(folder: Path, patch: str) -> None:
    """Lines in the user's own files: `# ... in web.hcl`, then what goes and what comes."""
    file = Path()
    lines = patch.splitlines()
    for line, after in itertools.pairwise([*lines, ""]):
        if line.startswith("# ") and line.endswith(".hcl"):
            file = folder / line.split()[-1]
        elif line.startswith("-"):
            gone, text = line[1:].strip(), file.read_text()
            # A block may be written as a field, too, and then with a comma before it.
            pattern = r"(, )?" + re.escape(gone).replace(r"config\ \{", r"config(?: =)? \{")
            come = after[1:].strip() if after.startswith("+") else ""
            changed, number = re.subn(pattern, come.replace("\\", r"\\"), text, count=1)
            assert number, f"{gone} is not in {file.name}"
            file.write_text(changed)


def looks_again(mesh: ConnectMesh, remedy: Remedy) -> None:
    """The command that it ends with, which says by its exit code that all is well."""
    for command in remedy.commands:
        if command.startswith("meshdoctor check"):
            done = subprocess.run(
                shlex.split(command),
                cwd=mesh.folder,
                env=mesh.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_fault_is_named_and_mended(row: Row, meshes: Meshes) -> None:
    """See the module."""
    fault = FAULTS[row.fault]
    mesh = meshes.get(acl=fault.acl, servers=fault.servers)
    before = eventually(mesh, lambda seen: not seen.findings, "nothing is found")
    assert before.report.coverage.sidecars_examined == len(mesh.services)
    assert differences(mesh, before) == []

    services = copy.deepcopy(mesh.services)
    try:
        fault.apply(mesh)
        seen = eventually(
            mesh,
            lambda seen: seen.roots == {row.root} and not differences(mesh, seen, row.unknown),
            f"{row.root} is the one root, and every call ends as predicted",
        )
        first = remedies(seen.report, row.root)[0]
        carry_out(mesh, first)
        row.by_hand(mesh)
        after = eventually(
            mesh,
            lambda seen: not seen.findings and not differences(mesh, seen),
            "nothing is found again",
        )
        assert after.pairs
        looks_again(mesh, first)
        mesh.restore(services)
    except BaseException:
        meshes.discard(mesh)
        raise


def test_a_token_that_may_not_read(meshes: Meshes) -> None:
    """No verdict, and the reason with what to give; with the management token all is well."""
    mesh = meshes.get(acl=True, servers=1)
    eventually(mesh, lambda seen: not seen.findings, "nothing is found")
    rules = ("-rules", 'key "unused" { policy = "read" }')
    mesh.run("consul", "acl", "policy", "create", "-name", "nothing", *rules)
    policy = ("-policy-name", "nothing", "-format", "json")
    created = mesh.run("consul", "acl", "token", "create", *policy)
    powerless = {**mesh.environment, "CONSUL_HTTP_TOKEN": json.loads(created)["SecretID"]}
    for environment in (
        powerless,
        {**powerless, "CONSUL_HTTP_TOKEN": ""},
        {**powerless, "CONSUL_HTTP_TOKEN": "00000000-1111-2222-3333-444444444444"},
    ):
        options = Options(environment=environment)
        snapshot = collect(options, lambda _message: None)
        report = examine(snapshot, Checks(tuple(CHECKS)), {"kind": "live"})
        assert report.verdict == "unknown"
        assert "the Consul catalogue could not be read" in report.verdict_reason
        assert not report.count(Severity.ERROR)
        (reason,) = (
            each.message
            for each in snapshot.absent
            if each.document == "consul/catalog/services.json"
        )
        assert "CONSUL_HTTP_TOKEN" in reason
    assert not look(mesh).findings
