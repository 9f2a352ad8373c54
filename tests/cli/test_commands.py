"""The other commands: what they print, and that they end as they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from meshdoctor import __version__
from meshdoctor.diagnosis import load_checks
from tests.cli.conftest import MESHES, Ran, Run, command, environment, process

CHECKS = load_checks().checks
COMPOSE = MESHES.parent / "compose" / "broken"


def test_version_and_help(run: Run) -> None:
    """On stdout, exit 0, and every command has its line."""
    assert run("--version") == Ran(0, f"meshdoctor, version {__version__}\n", "")
    ran = run("--help")
    assert (ran.code, ran.stderr) == (0, "")
    for name in ("check", "checks", "completion", "demo", "explain", "snapshot"):
        assert f"\n  {name} " in ran.stdout


def test_without_a_command_the_help_is_shown(run: Run) -> None:
    """That is wrong usage, so not on stdout."""
    ran = run()
    assert (ran.code, ran.stdout) == (2, "")
    assert "meshdoctor demo" in ran.stderr


# ---------------------------------------------------------------- explain


@pytest.mark.parametrize(
    "word",
    [
        "MD401",
        "md401",
        "tcp-listener-collision",
        "TCP-LISTENER-COLLISION",
        "tcp_listener_collision",
    ],
)
def test_explain_knows_codes_and_names(word: str, run: Run) -> None:
    """In either case."""
    ran = run("explain", word, "--width", 80)
    assert (ran.code, ran.stderr) == (0, "")
    assert "MD401" in ran.stdout
    assert "Why it matters" in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80


@pytest.mark.parametrize("each", CHECKS, ids=lambda each: str(each.code))
def test_every_check_has_a_page(each: object, run: Run) -> None:
    """No page is a traceback."""
    code = getattr(each, "code", "")
    ran = run("explain", code)
    assert (ran.code, ran.stderr) == (0, "")
    assert code in ran.stdout


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("MD4011", "Did you mean MD401?"),
        ("tcp-listner-collision", "Did you mean tcp-listener-"),
        ("registrator", "Did you mean registrator-drops-metadata?"),
        ("MD999", "code or name 'MD999'. See"),
        ("", "code or name ''. See"),
    ],
)
def test_explain_names_the_nearest(word: str, near: str, run: Run) -> None:
    """2, on stderr."""
    ran = run("explain", word)
    assert (ran.code, ran.stdout) == (2, "")
    assert near in ran.stderr
    assert "meshdoctor checks" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (("check", "evidence.tgz"), "--snapshot evidence.tgz?"),
        (("check", "--fail-on", "warning", "evidence"), "--snapshot evidence?"),
        (("check", "mesh.yaml"), "--compose mesh.yaml or --rules mesh.yaml?"),
        (("matrix", "evidence.tgz"), "--snapshot evidence.tgz?"),
        (("matrix", "mesh.yaml"), "--snapshot mesh.yaml?"),
    ],
)
def test_a_file_that_is_named_alone_is_shown_its_option(
    arguments: tuple[str, ...], meant: str, run: Run
) -> None:
    """As others' commands take it."""
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (2, "")
    assert f"unexpected extra argument ({arguments[-1]}). Did you mean {meant}" in ran.stderr


def test_what_is_not_asked_is_said(run: Run) -> None:
    """Of recorded evidence no mesh is asked, whatever stands beside it; nor of a variable."""
    ran = run("check", "--snapshot", "demo", "--consul", "http://x", "--envoy", "web=http://y")
    assert ran.code == 1
    assert ran.stderr == (
        "meshdoctor: what is recorded is examined, so --consul and --envoy are not used\n"
    )
    assert run("matrix", "--snapshot", "demo", "--pilot", "http://x").stderr.endswith(
        "so --pilot is not used\n"
    )
    assert run("matrix", "--snapshot", "demo").stderr == ""


@pytest.mark.parametrize("number", ["nan", "inf", "1e300"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "--timeout"),
        ("matrix", "--request-timeout"),
        ("watch", "--every"),
        ("watch", "--gather-timeout"),
        ("probe", "--probe-timeout"),
    ],
)
def test_time_is_finite(arguments: tuple[str, ...], number: str, run: Run) -> None:
    """What no clock can count is wrong usage, not a traceback."""
    ran = run(*arguments, number)
    assert (ran.code, ran.stdout) == (2, "")
    assert f"'{number}' is no number that time can be measured in" in ran.stderr


@pytest.mark.parametrize("asked", [("explain", "MD401"), ("checks",), ("config",)])
def test_colour_can_be_asked_for_everywhere(asked: tuple[str, ...], run: Run) -> None:
    """As for a pager; and what is coloured says the same, if code without its backticks."""
    plain = run(*asked, "--no-color").stdout
    colored = run(*asked, "--color").stdout
    assert "\x1b[" not in plain
    assert "\x1b[1m" in colored
    assert re.sub(r"\x1b\[[0-9;]*m", "", colored).split() == plain.replace("`", "").split()


def test_explain_names_the_codes_that_begin_so(run: Run) -> None:
    """As `--select MD10` takes them: a page is of one."""
    ran = run("explain", "md10")
    assert (ran.code, ran.stdout) == (2, "")
    assert "md10 is the beginning of MD101, MD102, " in ran.stderr


# ---------------------------------------------------------------- names that are not quite right


@pytest.mark.parametrize(
    ("arguments", "code", "meant"),
    [
        (("chek",), 2, "'check'"),
        (("check", "--snapshto", "x"), 2, "'--snapshot'"),
        (("check", "--select", "MD4011"), 2, "MD401"),
        (("check", "--snapshot", MESHES / "brokn.tgz"), 3, "broken.tgz?"),
        (("check", "--snapshot", "dmo"), 3, "did you mean demo?"),
        (("matrix", "--snapshot", MESHES / "fixed-v3.tgz"), 3, "fixed-v2.tgz?"),
        (("diff", "demo", MESHES / "fixt.tgz"), 3, "fixed.tgz?"),
        (("check", "--compose", COMPOSE / "docker-compose.yml"), 2, "docker-compose.yaml?"),
        (
            ("check", "--snapshot", "demo", "--rules", COMPOSE / "bookinf.yaml"),
            2,
            "bookinfo.yaml?",
        ),
    ],
)
def test_the_nearest_right_name_is_offered(
    run: Run, arguments: tuple[object, ...], code: int, meant: str
) -> None:
    """Of commands, options, codes and files."""
    ran = run(*arguments)
    assert (ran.code, ran.stdout) == (code, "")
    assert meant in ran.stderr


# ---------------------------------------------------------------- checks


def test_checks_lists_every_check(run: Run) -> None:
    """With its code and its name."""
    ran = run("checks")
    assert (ran.code, ran.stderr) == (0, "")
    for each in CHECKS:
        assert each.code in ran.stdout


def test_checks_as_json(run: Run) -> None:
    """What a program needs to know of each."""
    ran = run("checks", "--format", "json")
    assert (ran.code, ran.stderr) == (0, "")
    listed = json.loads(ran.stdout)
    rows = listed["checks"] if isinstance(listed, dict) else listed
    assert [(row["code"], row["name"]) for row in rows] == [
        (each.code, each.name) for each in CHECKS
    ]


# ---------------------------------------------------------------- demo


def test_the_demo_is_the_check_of_its_recording(run: Run) -> None:
    """The same report, but for where it is from, and exit 0: a demo does not fail."""
    demo = run("demo", "--format", "json")
    check = run("check", "--snapshot", MESHES / "broken.tgz", "--format", "json")
    assert (demo.code, check.code) == (0, 1)
    assert "A recorded mesh" in demo.stderr
    one, two = (json.loads(each.stdout) for each in (demo, check))
    assert one.pop("target") == {"kind": "snapshot", "paths": ["demo"]}
    assert two.pop("target") == {"kind": "snapshot", "paths": [str(MESHES / "broken.tgz")]}
    for report in (one, two):
        del report["created"], report["seconds"]
        for each in report["checks"]:
            del each["milliseconds"]
    assert one == two


def test_the_demos_recording_is_the_one_that_tests_see() -> None:
    """Byte for byte."""
    shipped = Path(__file__).parents[2] / "meshdoctor" / "snapshot" / "recordings" / "broken.tgz"
    assert shipped.read_bytes() == (MESHES / "broken.tgz").read_bytes()


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_what_their_shell_reads(shell: str, run: Run) -> None:
    """Each asks the program itself for words; where the shell is here, it parses the script."""
    ran = run("completion", shell)
    assert (ran.code, ran.stderr) == (0, "")
    assert "_MESHDOCTOR_COMPLETE" in ran.stdout
    if shutil.which(shell) is not None:
        parsed = subprocess.run(
            [shell, "-n"], input=ran.stdout, capture_output=True, check=False, encoding="utf-8"
        )
        assert (parsed.returncode, parsed.stderr) == (0, "")


def test_a_shell_that_is_not_known(run: Run) -> None:
    """2, with those that are."""
    ran = run("completion", "tcsh")
    assert (ran.code, ran.stdout) == (2, "")
    assert "bash" in ran.stderr


def test_completion_of_commands() -> None:
    """What the script asks, the program answers."""
    ran = process(_MESHDOCTOR_COMPLETE="bash_complete", COMP_WORDS="meshdoctor ch", COMP_CWORD="1")
    assert ran.code == 0
    assert {"plain,check", "plain,checks"} <= set(ran.stdout.split())


def test_completion_of_codes() -> None:
    """Where one is taken, each with what it means; in a list, the last."""

    def completed(*words: str) -> list[str]:
        variables = {"_MESHDOCTOR_COMPLETE": "zsh_complete", "COMP_WORDS": " ".join(words)}
        ran = process(**variables, COMP_CWORD=str(len(words) - 1))
        return ran.stdout.splitlines()

    assert completed("meshdoctor", "explain", "md401")[1:] == [
        "MD401",
        "One TCP listener takes the traffic of every service on its port.",
    ]
    assert completed("meshdoctor", "check", "--select", "MD202,MD40")[1::3][:2] == [
        "MD202,MD401",
        "MD202,MD402",
    ]


# ---------------------------------------------------------------- how a process ends


def test_who_reads_may_stop_early() -> None:
    """`meshdoctor demo | head -1`: one line, no traceback, the exit code of the demo."""
    with subprocess.Popen(
        command("demo"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        complaints = running.stderr.read().decode()
    assert running.returncode == 0
    assert "Traceback" not in complaints
    assert "BrokenPipe" not in complaints


def _shell(line: str) -> subprocess.CompletedProcess[str]:
    """`line` as a shell runs it; what it reads as "$@" is the command line of meshdoctor."""
    return subprocess.run(
        ("sh", "-c", line, "sh", *command()),
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment(),
        timeout=60,
    )


@pytest.mark.parametrize("asked", ["demo", "matrix --snapshot demo", "checks", "explain MD401"])
def test_a_full_disk_is_no_fault_of_ours(asked: str) -> None:
    """It is said in a line, and there is no verdict where nobody can read one."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    ran = _shell(f'"$@" {asked} > /dev/full')
    assert ran.returncode == 3
    assert "could not be written to stdout: No space left on device" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert _shell('"$@" --help > /dev/full').returncode == 3


def test_where_nobody_listens_the_exit_code_is_the_same(tmp_path: Path) -> None:
    """As in a job of cron: a closed stream is no finding, and no fault."""
    fixed = MESHES / "fixed.tgz"
    assert _shell(f'"$@" check --snapshot {fixed} 2>&-').returncode == 0
    assert _shell(f'"$@" check --snapshot {fixed} >&- 2>&- <&-').returncode == 0
    assert _shell('"$@" check --snapshot demo >&-').returncode == 1
    assert _shell('"$@" check --snapshot demo --output text=/dev/stderr 2>&-').returncode == 1
    assert _shell('"$@" check --nonsense 2>&-').returncode == 2
    code = tmp_path / "code"
    _shell(f'{{ "$@" trace nobody http://x/ --snapshot demo 2>&1; echo $? > {code}; }} | true')
    assert code.read_text(encoding="utf-8") == "2\n"


def test_a_fault_of_ours_is_no_finding(tmp_path: Path) -> None:
    """3 with the traceback on stderr: exit code 1 would say that the mesh is broken."""
    package = tmp_path / "meshdoctor_broken"
    package.mkdir()
    (package / "sitecustomize.py").write_text(
        "import meshdoctor.diagnosis as d\n"
        "def examine(*_, **__): raise RuntimeError('on purpose')\n"
        "d.examine = examine\n",
        encoding="utf-8",
    )
    path = environment()["PYTHONPATH"]
    ran = process(*("check", "--snapshot", MESHES / "fixed.tgz"), PYTHONPATH=f"{package}:{path}")
    assert (ran.code, ran.stdout) == (3, "")
    assert "RuntimeError: on purpose" in ran.stderr
    assert "fault of meshdoctor's own" in ran.stderr
