"""Settings files as the commands obey them, and `meshdoctor config`."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from meshdoctor.diagnosis import load_checks
from meshdoctor.report import config as config_report
from meshdoctor.report.json import schema
from meshdoctor.settings import FILE, load
from meshdoctor.settings.reading import KEYS
from tests.cli.conftest import MESHES, REPOSITORY, Run, process

BROKEN = MESHES / "broken.tgz"
CODES = ("MD201", "MD202", "MD401", "MD402")

OWN = '''
from meshdoctor.check import Mesh, check
from meshdoctor.findings import Finding, Severity

@check(code="OWN001", severity=Severity.ERROR, since="1")
def own_check(mesh: Mesh):
    """Something is wrong.

    ## Why it matters

    ## How it is found

    ## How to fix it

    Mend it.
    """
    yield Finding("It is wrong.", ())
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, where a settings file is looked for."""
    monkeypatch.delenv("MESHDOCTOR_CONFIG")
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def suppressing(*codes: str) -> str:
    return "".join(f'[[suppress]]\ncode = "{code}"\nreason = "known"\n' for code in codes)


# ---------------------------------------------------------------- obeyed


def test_what_is_suppressed_is_counted_and_not_told(folder: Path, run: Run) -> None:
    """In the exit code, the text and the JSON alike."""
    assert run("check", "--snapshot", BROKEN).code == 1
    (folder / FILE).write_text(suppressing(*CODES), encoding="utf-8")
    ran = run("check", "--snapshot", BROKEN)
    assert (ran.code, ran.stderr) == (0, "")
    assert "MD202: known." in ran.stdout
    assert "error MD" not in ran.stdout
    report = json.loads(run("check", "--snapshot", BROKEN, "--format", "json").stdout)
    jsonschema.validate(report, schema())
    assert [each["code"] for each in report["suppressions"]] == list(CODES)
    hidden = [each["matched"] for each in report["suppressions"]]
    assert all(hidden)
    assert report["summary"]["suppressed"] == sum(hidden)
    assert not {each["code"] for each in report["findings"]} & set(CODES)


def test_an_entry_that_hides_nothing_is_said(folder: Path, run: Run) -> None:
    """On stderr with its line, and in the report; past its date it does not suppress."""
    text = f"{suppressing('MD202')}until = 2000-01-01\n{suppressing('MD401')}subject = 'nobody'\n"
    (folder / FILE).write_text(text, encoding="utf-8")
    ran = run("check", "--snapshot", BROKEN)
    assert ran.code == 1
    assert f"{FILE}:1: the suppression of MD202 held until 2000-01-01" in ran.stderr
    assert f"{FILE}:5: the suppression of MD401 nobody hides nothing" in ran.stderr
    assert "No longer suppressed, for 2000-01-01 is past: MD202: known." in " ".join(
        ran.stdout.split()
    )
    ran = run("check", "--snapshot", BROKEN, "--format", "json")
    report = json.loads(ran.stdout)
    jsonschema.validate(report, schema())
    assert [(each["expired"], each["matched"]) for each in report["suppressions"]] == [
        (True, 0),
        (False, 0),
    ]
    assert report["summary"]["suppressed"] == 0
    ran = run("check", "--snapshot", BROKEN, "--select", "MD209")
    assert "MD401" not in ran.stderr
    assert "no finding of MD401 nobody (its check did not look): known." in ran.stdout


def test_a_report_without_suppressions_has_no_word_of_them(folder: Path, run: Run) -> None:
    """It is as without a settings file."""
    (folder / FILE).write_text("", encoding="utf-8")
    ran = run("check", "--snapshot", BROKEN, "--format", "json")
    assert "suppressions" not in json.loads(ran.stdout)


def test_severity_and_the_least_that_fails(folder: Path, run: Run) -> None:
    """Both are the file's, and a flag beats the file."""
    severities = "".join(f'{code} = "warning"\n' for code in CODES)
    (folder / FILE).write_text(f"[severity]\n{severities}", encoding="utf-8")
    assert run("check", "--snapshot", BROKEN).code == 0
    (folder / FILE).write_text(f'fail-on = "warning"\n[severity]\n{severities}', encoding="utf-8")
    assert run("check", "--snapshot", BROKEN).code == 1
    assert run("check", "--snapshot", BROKEN, "--fail-on", "error").code == 0


def test_checks_of_ones_own_and_the_chosen_ones(folder: Path, run: Run) -> None:
    """Paths are meant from the file, wherever below it the command runs."""
    (folder / "own.py").write_text(OWN, encoding="utf-8")
    text = 'checks = ["own.py"]\nselect = ["OWN", "MD2"]\nignore = ["MD209"]\n'
    (folder / FILE).write_text(text + suppressing("OWN001"), encoding="utf-8")
    ran = run("check", "--snapshot", BROKEN, "--format", "json")
    codes = {each["code"] for each in json.loads(ran.stdout)["checks"]}
    assert {"OWN001", "MD201"} <= codes
    assert not codes & {"MD209", "MD401"}
    assert "OWN001" in run("checks").stdout
    assert run("explain", "OWN001").code == 0
    ran = run("check", "--snapshot", BROKEN, "--select", "MD401", "--format", "json")
    assert [each["code"] for each in json.loads(ran.stdout)["checks"]] == ["MD401"]


def test_addresses_are_asked_unless_a_variable_names_others(tmp_path: Path) -> None:
    """Consul, the engine and a sidecar, each at a port where nobody listens."""
    path = tmp_path / FILE
    path.write_text(
        'docker-host = "tcp://127.0.0.1:1"\nconsul = "127.0.0.1:2"\ntimeout = 20\n'
        'envoy = {web = "127.0.0.1:3"}\n',
        encoding="utf-8",
    )
    ran = process("check", "--config", path, "--format", "json", HOME=str(tmp_path))
    assert ran.code == 3, ran.stderr
    report = json.loads(ran.stdout)["coverage"]
    said = {each["name"]: each["reason"] for each in report["sources"]}
    assert "127.0.0.1:1" in said["docker"]
    assert "127.0.0.1:2" in said["consul"]
    assert [each["name"] for each in report["sidecars"]["unreachable"]] == ["web"]
    others = {"DOCKER_HOST": "tcp://127.0.0.1:4", "CONSUL_HTTP_ADDR": "127.0.0.1:5"}
    # By the variable, as `--config` would.
    ran = process("check", MESHDOCTOR_CONFIG=str(path), HOME=str(tmp_path), **others)
    assert "127.0.0.1:4" in ran.stderr
    assert "127.0.0.1:5" in ran.stderr
    assert "127.0.0.1:2" not in ran.stderr
    ran = process("check", "--config", path, "--docker-context", "nowhere", HOME=str(tmp_path))
    assert "tcp://127.0.0.1:1" not in ran.stderr
    assert "nowhere" in ran.stderr


def test_the_demo_is_the_same_everywhere(folder: Path, run: Run) -> None:
    """It reads no settings."""
    (folder / FILE).write_text("no TOML", encoding="utf-8")
    assert run("demo").code == 0
    assert run("--help").code == 0


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    "arguments",
    [
        ("check",),
        ("snapshot", "-o", "new.tgz"),
        ("matrix",),
        ("trace", "web", "http://api"),
        ("probe",),
        ("explain", "MD401"),
        ("checks",),
        ("config",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_wrong_file_is_wrong_usage(
    arguments: tuple[str, ...], folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2, with file and line, before anything is asked; found, named or in the variable."""
    path = folder / FILE
    path.write_text('\nfail_on = "info"', encoding="utf-8")
    expected = f"{path}:2: 'fail_on' is no key: did you mean fail-on?"
    for given in ((), ("--config", path)):
        ran = run(*arguments, *given)
        assert (ran.code, ran.stdout) == (2, "")
        assert expected in ran.stderr
    path.rename(folder / "other.toml")
    monkeypatch.setenv("MESHDOCTOR_CONFIG", "other.toml")
    assert "other.toml:2: 'fail_on' is no key" in run(*arguments).stderr
    assert run(*arguments, "--help").code == 0


def test_an_unknown_code_is_wrong_usage(folder: Path, run: Run) -> None:
    """With the nearest one."""
    (folder / FILE).write_text(suppressing("MD4011"), encoding="utf-8")
    ran = run("check", "--snapshot", BROKEN)
    assert (ran.code, ran.stdout) == (2, "")
    assert f"{FILE}:2: no check has the code or name 'MD4011'. Did you mean MD401?" in ran.stderr


# ---------------------------------------------------------------- meshdoctor config


def test_config_says_where_each_value_comes_from(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flag, variable, file and line, or default."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:8500")
    text = 'consul = "beaten"\ntimeout = 30\ndocker-host = "unix:///run/docker.sock"\n'
    text += 'envoy = {web = "127.0.0.1:19000"}\n[severity]\nmd201 = "info"\n'
    text += f"{suppressing('MD202')}until = 2000-01-01\n"
    (folder / FILE).write_text(text, encoding="utf-8")
    ran = run("config", "--select", "MD2,MD4", "--format", "json")
    assert (ran.code, ran.stderr) == (0, "")
    document = json.loads(ran.stdout)
    jsonschema.validate(document, config_report.schema())
    path = folder / FILE
    assert document["file"] == str(path)
    told = {
        each["key"]: (each["value"], each["origin"], each["where"])
        for each in document["settings"]
    }
    assert list(told) == list(KEYS)
    assert told["select"] == (["MD2,MD4"], "flag", "--select")
    assert told["consul"] == ("127.0.0.1:8500", "variable", "CONSUL_HTTP_ADDR")
    assert told["timeout"] == (30, "file", f"{path}:2")
    assert told["docker-host"] == ("unix:///run/docker.sock", "file", f"{path}:3")
    assert told["docker-context"] == (None, "default", "")
    assert told["envoy"] == ({"web": "http://127.0.0.1:19000"}, "file", f"{path}:4")
    assert told["fail-on"] == ("error", "default", "")
    assert document["severity"] == [{"code": "MD201", "severity": "info", "where": f"{path}:6"}]
    assert document["suppress"][0]["expired"] is True
    shown = run("config", "--select", "MD2,MD4", "--docker-context", "mesh", "--width", 200)
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert f"Settings file: {path}" in lines
    assert "select MD2,MD4 (--select)" in lines
    assert "docker-context mesh (--docker-context)" in lines
    assert "docker-host that of the Docker context (default)" in lines
    assert f"timeout 30 s ({FILE}:2)" in lines
    assert "consul-token-file no token (default)" in lines
    assert f"severity MD201 = info ({FILE}:6)" in lines
    assert f"suppress MD202: known; held until 2000-01-01 ({FILE}:7)" in lines


def test_config_without_a_file(folder: Path, run: Run) -> None:
    """Says so, and shows what holds."""
    ran = run("config")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.stdout.startswith("No settings file was found.\n")
    assert json.loads(run("config", "--format", "json").stdout)["file"] is None
    assert not (folder / FILE).exists()


@pytest.mark.parametrize("width", [30, 40, 50, 80])
def test_config_fits(folder: Path, run: Run, width: int) -> None:
    """No line is wider than asked for, nor broken within a word that would fit on one."""
    ran = run("config", "--width", width, "--docker-host", "unix:///run/user/1000/docker.sock")
    assert ran.code == 0, folder
    assert max(map(len, ran.stdout.splitlines())) <= width
    assert "unix:///run/user/1000/docker.sock" in ran.stdout or width == 30


def test_config_shows_no_token(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only that there is one."""
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", "s3cret")
    (folder / FILE).write_text('consul-token-file = "token"', encoding="utf-8")
    for format_ in ("text", "json"):
        ran = run("config", "--format", format_)
        assert "s3cret" not in ran.stdout + ran.stderr
        assert "CONSUL_HTTP_TOKEN" in ran.stdout


def test_the_example_of_the_docs_is_right(tmp_path: Path) -> None:
    """Whoever copies it has a file that is read, with codes that exist and every key but two."""
    text = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (tmp_path / FILE).write_text(example, encoding="utf-8")
    settings = load(tmp_path / FILE)
    assert settings.policy(load_checks()).suppressions
    assert settings.values.keys() == KEYS.keys() - {"select", "docker-context"}
    for key in KEYS:
        assert f"`{key}`" in text
