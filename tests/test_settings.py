"""The settings file: where it is found, what is refused, and what it does to a report."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from meshdoctor.check import Check, check
from meshdoctor.diagnosis import Checks, Policy, Suppression, examine, load_checks, suppress
from meshdoctor.findings import Fact, Finding, Severity, Subject, SubjectKind
from meshdoctor.report.config import Config, Origin
from meshdoctor.report.document import Report, Verdict
from meshdoctor.settings import FILE, PYPROJECT, Settings, SettingsError, discover, load
from meshdoctor.settings.reading import KEYS
from meshdoctor.snapshot import open_snapshot
from meshdoctor.topology import Mesh

BROKEN = Path(__file__).parents[1] / "fixtures" / "meshes" / "broken.tgz"
ALL = load_checks()
TODAY = date(2026, 11, 23)


def written(folder: Path, text: str, name: str = FILE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refused(path: Path) -> list[str]:
    """What is said of the file, a line a fault, without its folder."""
    with pytest.raises(SettingsError) as raised:
        load(path).policy(ALL)
    return str(raised.value).replace(f"{path.parent}/", "").splitlines()


# ---------------------------------------------------------------- where it is found


def test_the_nearest_file_counts(tmp_path: Path) -> None:
    """In the folder itself, else in those above, one at a time."""
    above = written(tmp_path, 'ignore = ["MD209"]')
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    assert discover(deep).path == above
    near = written(tmp_path / "a", "")
    found = discover(deep)
    assert (found.path, found.values) == (near, {})


@pytest.mark.parametrize("root", [".git", ".hg"])
def test_the_search_ends_at_the_root_of_a_repository(root: str, tmp_path: Path) -> None:
    """Its own file counts, and none above it."""
    written(tmp_path, "")
    (tmp_path / "repository" / root).mkdir(parents=True)
    inside = tmp_path / "repository" / "src"
    inside.mkdir()
    assert discover(inside) == Settings()
    own = written(tmp_path / "repository", "")
    assert discover(inside).path == own


def test_the_search_ends_at_home(tmp_path: Path) -> None:
    """What is above a home is somebody else's."""
    written(tmp_path, "")
    work = tmp_path / "home" / "work"
    work.mkdir(parents=True)
    assert discover(work, home=work.parent) == Settings()
    own = written(work.parent, "")
    assert discover(work, home=work.parent).path == own


def test_a_pyproject_counts_where_it_has_the_table(tmp_path: Path) -> None:
    """Any other one is passed by, also one that is no TOML."""
    above = written(tmp_path, '[tool.meshdoctor]\nfail-on = "info"\n', PYPROJECT)
    for text in ("", "[tool.ruff]\n", 'name = "meshdoctor"\n', "[[[ no TOML"):
        written(tmp_path / "a", text, PYPROJECT)
        found = discover(tmp_path / "a")
        assert (found.path, found.values) == (above, {"fail-on": "info"})
    own = written(tmp_path, 'fail-on = "warning"')
    assert discover(tmp_path).path == own


def test_a_pyproject_that_is_named_must_have_the_table(tmp_path: Path) -> None:
    """Else its settings would silently be none."""
    assert refused(written(tmp_path, "", PYPROJECT)) == [
        "pyproject.toml: it has no table [tool.meshdoctor]"
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_pyproject_whose_table_is_none(tmp_path: Path) -> None:
    """The name alone is not the table."""
    path = written(tmp_path, 'tool.meshdoctor = "x"', PYPROJECT)
    assert refused(path) == ["pyproject.toml:1: [tool.meshdoctor] is a table, not a text"]


def test_a_file_of_another_user_is_not_found_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names code to run. Who names it trusts it; so does its owner, become root by sudo."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    path = written(tmp_path, "")
    os.chown(path, 4242, -1)
    with pytest.raises(SettingsError, match=r"another user .*--config"):
        discover(tmp_path)
    assert load(path).path == path
    monkeypatch.setenv("SUDO_UID", "4242")
    assert discover(tmp_path).path == path


def test_no_file_says_nothing(tmp_path: Path) -> None:
    """And /dev/null is a file that says nothing."""
    (tmp_path / ".git").mkdir()
    assert discover(tmp_path) == Settings()
    assert load(Path(os.devnull)).values == {}


# ---------------------------------------------------------------- what is refused

GOOD = """\
select = ["MD2", "tcp-listener-collision"]
ignore = ["MD209"]
checks = ["own", "/srv/checks.py"]
fail-on = "warning"
docker-host = "ssh://me@mesh-host"
consul = "127.0.0.1:8500"
consul-token-file = "token.txt"
pilot = "http://127.0.0.1:15014"
apiserver = "http://127.0.0.1:8080"
kubeconfig = "kubeconfig"
envoy = {web = "http://127.0.0.1:19000"}
timeout = 30
request-timeout = 2.5

[severity]
MD209 = "warning"

[[suppress]]
code = "MD202"
reason = "known"

[[suppress]]
code = "md201"
subject = "service/rat*"
reason = "known too"
until = 2030-01-31
"""


def test_every_key_is_read(tmp_path: Path) -> None:
    """With its type; paths are meant from the file's folder."""
    settings = load(written(tmp_path, GOOD))
    assert settings.values == {
        "select": ("MD2", "tcp-listener-collision"),
        "ignore": ("MD209",),
        "checks": (tmp_path / "own", Path("/srv/checks.py")),
        "fail-on": "warning",
        "docker-host": "ssh://me@mesh-host",
        "consul": "127.0.0.1:8500",
        "consul-token-file": tmp_path / "token.txt",
        "pilot": "http://127.0.0.1:15014",
        "apiserver": "http://127.0.0.1:8080",
        "kubeconfig": tmp_path / "kubeconfig",
        "envoy": ("web=http://127.0.0.1:19000",),
        "timeout": 30.0,
        "request-timeout": 2.5,
    }
    assert settings.values.keys() == KEYS.keys() - {"docker-context"}
    assert settings.policy(ALL) == Policy(
        (
            Suppression("MD202", "known"),
            Suppression("MD201", "known too", "service/rat*", date(2030, 1, 31)),
        ),
        {"MD209": Severity.WARNING},
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\nselct = ["MD201"]', "meshdoctor.toml:2: 'selct' is no key: did you mean select?"),
        ('fail_on = "info"', "meshdoctor.toml:1: 'fail_on' is no key: did you mean fail-on?"),
        ("color = true", "meshdoctor.toml:1: 'color' is no key: there are select, ignore, "),
        ('consul-token = "s"', "meshdoctor.toml:1: consul-token: a token has no place in a file"),
        ('consul_token = "s"', "set CONSUL_HTTP_TOKEN"),
        ('select = "MD201"', 'select: write a list, as in ["..."], not a text'),
        ("select = [1]", "select: write a text in quotes, not a number"),
        ('select = ["MD2", "MD4011"]', "meshdoctor.toml:1: select: no check has the code or name"),
        ('ignore = ["MD4011"]', "Did you mean MD401?"),
        ('fail-on = "eror"', "write one of error, warning, info, not 'eror'; did you mean error?"),
        ("fail-on = true", "fail-on: write one of error, warning, info, not true"),
        ('consul = ""', "consul: it is empty"),
        ('consul = "http://me:secret@h"', "consul: an address here holds no name or password"),
        ('consul = "http://[::1"', "is no address"),
        ('docker-host = "ssh://me:pw@h"', "docker-host: an address here holds no name or passw"),
        ('docker-host = "a"\n\ndocker-context = "b"', "meshdoctor.toml:3: docker-context stands"),
        ('docker-context = "a\\u001b[2J"', "characters that cannot be shown"),
        ('[envoy]\n"a=b" = "http://h"', "meshdoctor.toml:2: envoy: 'a=b' is no name of a sidecar"),
        ('fail-on = ["a"]', "fail-on: write one of error, warning, info, not"),
        ("select = 1.5", 'select: write a list, as in ["..."], not a number'),
        ("select = true", 'select: write a list, as in ["..."], not true'),
        ("select = { a = 1 }", 'select: write a list, as in ["..."], not a table'),
        ('envoy = "http://h"', "envoy: write a name and an address for each sidecar"),
        ('[envoy]\na = "h"\nweb = 1', "meshdoctor.toml:3: web: write a text in quotes"),
        ("timeout = 0", "timeout: write a number of seconds from 0.1 to 86400, not 0"),
        ("timeout = nan", "seconds from 0.1 to 86400, not nan"),
        ("timeout = inf", "not inf"),
        ("timeout = true", "not true"),
        ("timeout = 2030-01-31", "not a date"),
        ('severity = "error"', "severity: write a table [severity]"),
        (
            '[severity]\nMD201 = "warn"',
            "meshdoctor.toml:2: MD201: write one of info, warning, err",
        ),
        ('[severity]\n\nMD2011 = "info"', "meshdoctor.toml:3: no check has the code or name 'MD2"),
        ("suppress = 1", "suppress: write each as a table of its own, [[suppress]]"),
        ("suppress = [1]", "suppress: each is a table, not a number"),
        ('[[suppress]]\ncode = "MD201"', "meshdoctor.toml:1: this suppression has no reason: say"),
        ('[[suppress]]\nreason = "x"', "meshdoctor.toml:1: this suppression has no code, as MD2"),
        ('[[suppress]]\ncode = "MD201"\nreason = " "', "meshdoctor.toml:3: reason: it is empty"),
        (
            '[[suppress]]\ncode = "MD201"\nreason = "x"\n[[suppress]]\ncode="MD20"\nreason = "x"',
            "meshdoctor.toml:5: MD20 is the beginning of MD201, MD202, ",
        ),
        (
            '[[suppress]]\ncode = "MD201"\nraeson = "x"',
            "meshdoctor.toml:3: 'raeson' is no key of [[suppress]]: did you mean reason?",
        ),
        (
            '[[suppress]]\ncode = "MD201"\nreason = "x"\nuntil = "2030-01-31"',
            "meshdoctor.toml:4: until: write a date without quotes, as 2030-01-31",
        ),
        (
            '[[suppress]]\ncode = "MD201"\nreason = "x"\nuntil = 2030-01-31T10:00:00Z',
            "until: write a date without quotes",
        ),
        ("select = [", "meshdoctor.toml: it is not TOML: "),
        ("a = " + "[" * 9999, "meshdoctor.toml: it is not TOML: "),
        ("a = " + "9" * 9999, "meshdoctor.toml: it is not TOML: "),
        ("#" * 2**20 + "#", "meshdoctor.toml: it is larger than 1 MiB"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    """The file, the line, the key, and the nearest right one."""
    told = refused(written(tmp_path, text))
    assert any(said in line for line in told), told
    assert all(line.startswith(FILE) for line in told)


def test_what_is_wrong_is_said_all_at_once(tmp_path: Path) -> None:
    """A fault does not hide the next one."""
    text = 'fail-on = 3\ntimeout = "x"\n[[suppress]]\nuntil = 3\n'
    assert [line.split(":")[1] for line in refused(written(tmp_path, text))] == list("12334")


def test_a_file_that_is_not_utf_8_or_not_there(tmp_path: Path) -> None:
    """Plain words, no traceback."""
    path = tmp_path / FILE
    assert refused(path) == ["meshdoctor.toml: it cannot be read: No such file or directory"]
    path.write_bytes(b"\xff\xfe")
    assert "it is not UTF-8" in refused(path)[0]
    assert "it cannot be read" in refused(tmp_path)[0]


@given(st.text(alphabet="[]{}=\".,#\n\\'ab -1suprecodt", max_size=60))
def test_any_text_gives_settings_or_an_error(text: str) -> None:
    """Never anything else."""
    with tempfile.TemporaryDirectory() as folder:
        for name in (FILE, PYPROJECT):
            for said in (text, f"[tool.meshdoctor]\n{text}", f"[[suppress]]\n{text}"):
                with contextlib.suppress(SettingsError):
                    load(written(Path(folder), said, name)).policy(ALL)


# ---------------------------------------------------------------- where a value stands


def test_lines_are_those_of_the_statement(tmp_path: Path) -> None:
    """Also behind values of many lines, which may look like keys, and within nested tables."""
    text = (
        "# comment\n"
        'select = [\n  "MD2",\n  "MD3",\n]\n'
        "\n"
        'pilot = """\nconsul = 1"""\n'
        'consul = "h"\r\n'
        "[[suppress]]\n"
        'code = "MD201"\n'
        'reason = "x"\n'
        "\n"
        "[[ suppress ]] # second\n"
        '"code" = "MD202"\n'
        "reason = '''\n[severity]\n'''\n"
        "[severity]\n"
        'MD201 = "info"'
    )
    settings = load(written(tmp_path, text))
    keys = ("select",), ("pilot",), ("consul",), ("suppress", 0), ("suppress", 1)
    lines = [settings.where(*each).rpartition(":")[2] for each in keys]
    assert lines == ["2", "7", "9", "10", "14"]
    assert settings.where("suppress", 1, "code").endswith(f"{FILE}:15")
    assert settings.where("severity", "MD201").endswith(f"{FILE}:20")
    assert settings.where("suppress", 1, "until").endswith(f"{FILE}:14")


def test_lines_of_a_pyproject(tmp_path: Path) -> None:
    """Below the table, in either way to write it."""
    text = (
        '[project]\nname = "x"\n'
        '[tool.meshdoctor]\nignore = ["MD209"]\nseverity.MD201 = "info"\n'
        '[[tool.meshdoctor.suppress]]\ncode = "MD201"\nreason = "x"\n'
    )
    settings = load(written(tmp_path, text, PYPROJECT))
    assert settings.where("ignore").endswith(f"{PYPROJECT}:4")
    assert settings.where("severity", "MD201").endswith(f"{PYPROJECT}:5")
    assert settings.where("suppress", 0).endswith(f"{PYPROJECT}:6")
    (fault,) = refused(written(tmp_path, f"{text}unitl = 1\n", PYPROJECT))
    assert fault.startswith("pyproject.toml:9: 'unitl' is no key of [[suppress]]")


# ---------------------------------------------------------------- flag, variable, file, default

OPTIONS: Final[dict[str, object]] = {
    "select": (),
    "ignore": (),
    "check_paths": (),
    "fail_on": "error",
    "docker_host": None,
    "docker_context": None,
    "consul": None,
    "consul_token_file": None,
    "pilot": None,
    "apiserver": None,
    "kubeconfig": None,
    "envoys": {},
    "timeout": 60.0,
    "request_timeout": 5.0,
}


def in_force(text: str, folder: Path, flags: dict[str, object], **environment: str) -> Config:
    settings = load(written(folder, text))
    options = OPTIONS | settings.options(environment) | flags
    return settings.in_force(Policy(), options, list(flags), environment, TODAY)


def told(config: Config, key: str) -> tuple[object, Origin, str]:
    (found,) = (each for each in config.settings if each.key == key)
    return found.value, found.origin, found.where.rpartition("/")[2]


def test_a_flag_beats_a_variable_beats_the_file(tmp_path: Path) -> None:
    """And the file beats what is found by itself."""
    text = 'consul = "file"'
    key, variable = "consul", {"CONSUL_HTTP_ADDR": "variable"}
    flag: dict[str, object] = {"consul": "flag"}
    for given_flags, environment, expected in (
        (flag, variable, ("flag", Origin.FLAG, "--consul")),
        ({}, variable, ("variable", Origin.VARIABLE, "CONSUL_HTTP_ADDR")),
        ({}, {"CONSUL_HTTP_ADDR": ""}, ("file", Origin.FILE, "meshdoctor.toml:1")),
    ):
        assert told(in_force(text, tmp_path, given_flags, **environment), key) == expected
    assert told(in_force("", tmp_path, {}), key) == (None, Origin.DEFAULT, "")


@pytest.mark.parametrize("key", ["docker-host", "docker-context"])
@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_CONTEXT"])
def test_an_engine_is_named_once(key: str, variable: str, tmp_path: Path) -> None:
    """By host or by context: the stronger place counts, whichever of the two it uses."""
    text = f'{key} = "file"'
    config = in_force(text, tmp_path, {}, **{variable: "variable"})
    values = {each.key: each.value for each in config.settings if each.value}
    named = variable.lower().replace("_", "-")
    assert values == {"fail-on": "error", named: "variable", "timeout": 60, "request-timeout": 5}
    for flag in ("docker_host", "docker_context"):
        config = in_force(text, tmp_path, {flag: "flag"}, **{variable: "variable"})
        found = [each.value for each in config.settings if each.key.startswith("docker")]
        assert sorted(found, key=str) == [None, "flag"]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    """A token of the environment, and a password in an address."""
    text = 'consul-token-file = "token.txt"'
    config = in_force(text, tmp_path, {}, CONSUL_HTTP_TOKEN="s3cret")  # noqa: S106 # of a test
    expected = (None, Origin.VARIABLE, "CONSUL_HTTP_TOKEN")
    assert told(config, "consul-token-file") == expected
    config = in_force(text, tmp_path, {}, CONSUL_HTTP_ADDR="http://me:s3cret@consul")
    assert "s3cret" not in str(config)


# ---------------------------------------------------------------- suppression


def about(*subjects: str) -> Finding:
    """A finding about `kind/name` each."""
    pairs = (each.partition("/") for each in subjects)
    found = tuple(Subject(SubjectKind(kind), name) for kind, _, name in pairs)
    return Finding("It is broken.", found)


def a_check(code: str, finding: Finding, explains: tuple[str, ...] = ()) -> Check:
    def function(mesh: Mesh) -> Iterator[Finding | Fact]:  # noqa: ARG001 # it must be there
        yield finding

    sections = ("Why it matters", "How it is found", "How to fix it")
    function.__doc__ = "\n\n".join(["It is broken.", *(f"## {each}" for each in sections), "So."])
    function.__name__ = f"check_{code.lower()}"
    return check(code=code, severity=Severity.ERROR, since="0.1", explains=explains)(function)


def hidden(finding: Finding, *globs: str, until: date | None = None) -> tuple[bool, list[int]]:
    """Whether the finding is, and by how many each suppression says to have hidden."""
    entries = [Suppression("MD001", "known", glob, until) for glob in globs]
    left, results = suppress([(a_check("MD001", finding), finding)], entries, TODAY)
    return not left, [each.matched for each in results]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("", True),
        ("*", True),
        ("service/*", True),
        ("service/[dr]*", True),
        ("service/details", False),
        ("details", False),
        ("workload/web-1", True),
        ("web-?", True),
        ("WEB-1", False),
        ("listener/*", False),
        ("listener/[::]:9080", False),
    ],
)
def test_a_glob_hides_a_finding_that_it_covers(glob: str, *, expected: bool) -> None:
    """Of the kinds that it meets, all subjects; what one more service has is told."""
    finding = about("service/details", "service/ratings", "workload/web-1")
    assert hidden(finding, glob) == (expected, [int(expected)])


def test_a_name_with_brackets_or_a_slash_is_its_own_glob() -> None:
    """An IPv6 listener, a rule's kind and name."""
    assert hidden(about("listener/[::]:9080"), "listener/[::]:9080")[0]
    assert hidden(about("rule/VirtualService/web"), "rule/VirtualService/web")[0]
    assert hidden(about("rule/VirtualService/web"), "VirtualService/web")[0]


def test_entries_cover_a_finding_together() -> None:
    """Each of the two is used; a third one that does not reach does no harm and is unused."""
    finding = about("service/details", "service/ratings", "workload/web-1", "workload/web-2")
    globs = ("service/details", "service/ratings", "workload/web-1")
    assert hidden(finding, *globs) == (True, [1, 1, 0])
    assert hidden(finding, *globs[1:]) == (False, [0, 0])


def test_a_finding_without_a_subject() -> None:
    """No glob is its own, but its code is."""
    assert hidden(about(), "*") == (False, [0])
    assert hidden(about(), "") == (True, [1])


def test_a_suppression_holds_through_its_last_day() -> None:
    """And hides nothing on the next one."""
    assert hidden(about("service/web"), "", until=TODAY) == (True, [1])
    assert hidden(about("service/web"), "", until=date(2026, 11, 22)) == (False, [0])


def test_a_suppression_is_of_its_code_alone() -> None:
    """Another check's finding about the same stays."""
    entry = Suppression("MD002", "known")
    finding = about("service/web")
    left, (result,) = suppress([(a_check("MD001", finding), finding)], [entry], TODAY)
    assert (len(left), result.matched) == (1, 0)


# ---------------------------------------------------------------- in the report

WEB = about("service/web")
CHAIN = Checks((a_check("MD001", WEB, explains=("MD002",)), a_check("MD002", WEB)))
ROOT = Suppression("MD001", "known")
SYMPTOM = Suppression("MD002", "known")


def report(policy: Policy, checks: Checks = CHAIN) -> Report:
    return examine(open_snapshot(BROKEN), checks, {"kind": "snapshot"}, policy)


def test_a_suppressed_cause_leaves_its_symptoms() -> None:
    """They are told as causes of their own; nothing is hidden that was not named."""
    assert [each.findings for each in report(Policy()).diagnoses] == [("F1", "F2")]
    found = report(Policy((ROOT,)))
    assert [(each.code, each.causes) for each in found.findings] == [("MD002", ())]
    assert [each.findings for each in found.diagnoses] == [("F1",)]
    assert (found.suppressed, found.verdict) == (1, Verdict.BROKEN)


def test_the_verdict_is_of_what_is_left() -> None:
    """And each suppressed finding is counted once, however many entries hide it."""
    found = report(Policy((ROOT, SYMPTOM, replace(ROOT, subject="service/*"))))
    assert (found.findings, found.diagnoses) == ((), ())
    assert (found.suppressed, found.verdict) == (2, Verdict.HEALTHY)
    assert [each.matched for each in found.suppressions] == [1, 1, 1]


def test_a_severity_is_of_every_finding_of_its_code() -> None:
    """It counts for the verdict too."""
    found = report(Policy(severities={"MD001": Severity.INFO, "MD002": Severity.WARNING}))
    assert [(each.code, each.severity) for each in found.findings] == [
        ("MD001", Severity.INFO),
        ("MD002", Severity.WARNING),
    ]
    assert found.verdict is Verdict.DEGRADED


def test_a_suppression_is_unused_only_where_its_check_looked(tmp_path: Path) -> None:
    """Nothing is known of one whose check did not run."""
    entries = '[[suppress]]\ncode = "{}"\nreason = "known"\n'
    text = entries.format("MD001") + entries.format("MD002") + 'subject = "nobody"\n'
    settings = load(written(tmp_path, text + entries.format("MD002") + "until = 2000-01-01\n"))
    said = list(settings.warnings(report(settings.policy(CHAIN))))
    assert len(said) == 2
    assert said[0].endswith(
        "meshdoctor.toml:4: the suppression of MD002 nobody hides nothing, for it covers no "
        "finding whole: widen its subject or take it out"
    )
    assert said[1].endswith(
        "meshdoctor.toml:8: the suppression of MD002 held until 2000-01-01, and hides nothing "
        "any more: set a later date or take it out"
    )
    chosen = CHAIN.choose(["MD001"], [])
    said = list(settings.warnings(report(settings.policy(CHAIN), chosen)))
    assert len(said) == 1
    assert "2000-01-01" in said[0]
