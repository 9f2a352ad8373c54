"""Patches of Compose files: applied by the real programs, they do what was wanted and no more."""

import os
import random
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from meshdoctor.evidence.layout import compose_file
from meshdoctor.snapshot.redaction import redact
from meshdoctor_checks.compose_edits import (
    Argument,
    Change,
    Edit,
    Element,
    Value,
    Variable,
    change,
)

FILE = """\
version: "3"  # of the format
x-settings: &settings
  SERVICE_TAGS: version|v1
  DATABASE_PASSWORD: hunter2
services:
  # who registers
  registrator:
    image: gliderlabs/registrator:latest
    command: "consul://consul:8500"
    restart: always

  consul:
    image: consul:1.3.0
    ports:
      - "8500:8500"
      - "${DOCKER_GATEWAY}53:8600/udp"
    dns: 8.8.8.8
  details:
    image: examples-bookinfo-details-v1
    environment:
      - "SERVICE_NAME=details"
      - DATABASE_PASSWORD=hunter2
    dns_search: [example.org]
  ratings:
    environment:
      <<: *settings
      SERVICE_NAME: ratings
    labels: {SERVICE_PROTOCOL: htttp}
  reviews:
    environment: *settings
  static:
    environment: *settings
    expose: ["9080"]
  last:
    image: a
    command:
    - consul://consul:8500
    healthcheck:
      test: |
        curl -u admin:hunter2
        http://127.0.0.1
"""


def read(text: str) -> str:
    """As a collector would record it."""
    return redact(compose_file("/srv/compose.yaml"), text.encode())[0].decode()


def changed(text: str, *wanted: tuple[str, Sequence[Edit]]) -> Change | None:
    return change({"compose.yaml": read(text)}, ["compose.yaml"], wanted)


def apply(folder: Path, found: Change | None, text: str) -> str:
    """The file after the printed command, after `patch`, and after `git apply`: all the same."""
    assert found is not None
    assert found.patch is not None
    # Behind a change that has something secret next to it nothing can be quoted: git takes that
    # for the end of the file, and patch finds the place by what is before.
    is_cut = any(re.search(r"\n[+-][^\n]*$", hunk) for hunk in found.patch.split("\n@@ ")[1:])
    unanchored = "--unidiff-zero" if is_cut else ""
    results = set()
    for number, command in enumerate(
        (*found.commands, "patch -p0 < ../change.patch", f"git apply {unanchored} ../change.patch")
    ):
        here = folder / f"{number}"
        here.mkdir()
        (folder / "change.patch").write_text(f"{found.patch}\n")
        (here / "compose.yaml").write_bytes(text.encode())
        ran = subprocess.run(
            ["sh", "-c", command],
            cwd=here,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder)},
        )
        assert ran.returncode == 0, (command, ran.stdout, ran.stderr)
        assert "offset" not in ran.stdout, "the line numbers are not the file's"
        assert "fuzz 2" not in ran.stdout
        assert is_cut or "fuzz" not in ran.stdout
        results.add((here / "compose.yaml").read_bytes())
    (result,) = results
    return result.decode()


def lines(text: str, instead: dict[str, str]) -> str:
    """The file with these lines in the place of others."""
    for old, new in instead.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(
    ("service", "edits", "instead"),
    [
        pytest.param(
            "registrator",
            [Value("image", "gliderlabs/registrator:master", "gliderlabs/registrator:latest")],
            {"registrator:latest": "registrator:master"},
            id="a value",
        ),
        pytest.param(
            "registrator",
            [Argument("-internal", "consul://consul:8500")],
            {'    command: "consul:': '    command: "-internal consul:'},
            id="an argument of a line",
        ),
        pytest.param(
            "last",
            [Argument("-internal", "consul://consul:8500")],
            {"    - consul:": '    - "-internal"\n    - consul:'},
            id="an argument of a list",
        ),
        pytest.param(
            "details",
            [Variable("SERVICE_NAME", "other", "details")],
            {'"SERVICE_NAME=details"': '"SERVICE_NAME=other"'},
            id="a variable in quotes",
        ),
        pytest.param(
            "ratings",
            [Variable("SERVICE_PROTOCOL", "http", "htttp")],
            {"{SERVICE_PROTOCOL: htttp}": "{SERVICE_PROTOCOL: http}"},
            id="a variable that is a label",
        ),
        pytest.param(
            "ratings",
            [Variable("SERVICE_IGNORE", "1")],
            {
                "      SERVICE_NAME: ratings\n": "      SERVICE_NAME: ratings\n"
                '      SERVICE_IGNORE: "1"\n'
            },
            id="a variable of a mapping",
        ),
        pytest.param(
            "registrator",
            [Variable("SERVICE_IGNORE", "1")],
            {
                "    restart: always\n": "    restart: always\n    environment:\n"
                "      - SERVICE_IGNORE=1\n"
            },
            id="the first variable",
        ),
        pytest.param(
            "static",
            [Element("expose", "9443")],
            {'["9080"]': '["9080", "9443"]'},
            id="an element of a list on one line",
        ),
        pytest.param(
            "details",
            [Element("dns_search", "service.consul")],
            {"[example.org]": "[example.org, service.consul]"},
            id="a word on one line",
        ),
        pytest.param(
            "consul",
            [Element("dns", "172.28.0.1")],
            {"dns: 8.8.8.8": "dns: [8.8.8.8, 172.28.0.1]"},
            id="one value that becomes a list",
        ),
        pytest.param(
            "consul",
            [Element("ports", "172.28.0.1:53:8600/udp", ("${DOCKER_GATEWAY}53:8600/udp",))],
            {"${DOCKER_GATEWAY}53:8600/udp": "172.28.0.1:53:8600/udp"},
            id="an element in the place of another",
        ),
        pytest.param(
            "consul",
            [Element("cap_add", "NET_ADMIN", first=True)],
            {"dns: 8.8.8.8\n": "dns: 8.8.8.8\n    cap_add:\n      - NET_ADMIN\n"},
            id="the first element",
        ),
    ],
)
def test_the_patch_changes_these_lines_alone(
    service: str, edits: Sequence[Edit], instead: dict[str, str], tmp_path: Path
) -> None:
    """Comments, quotes and order stay."""
    assert apply(tmp_path, changed(FILE, (service, edits)), FILE) == lines(FILE, instead)


def test_no_secret_is_quoted(tmp_path: Path) -> None:
    """What is near a change is quoted only where nothing in it could be secret."""
    found = changed(FILE, ("details", [Variable("SERVICE_PROTOCOL", "http")]))
    if found is not None and found.patch is not None:
        # The element behind which it would stand is a password's: nothing of it may be shown.
        assert "hunter2" not in found.patch
        after = yaml.safe_load(apply(tmp_path, found, FILE))
        assert "SERVICE_PROTOCOL=http" in after["services"]["details"]["environment"]
    for name in ("consul", "registrator", "ratings"):
        found = changed(FILE, (name, [Variable("SERVICE_IGNORE", "1")]))
        assert found is not None
        assert "hunter2" not in f"{found.patch}{found.commands}"


def test_what_others_share_is_changed_only_for_all() -> None:
    """An anchor's variables are those of every service that takes them from there."""
    protocol = Variable("SERVICE_PROTOCOL", "http")
    assert changed(FILE, ("reviews", [protocol])) is None
    shared = FILE.replace("  ratings:\n    environment:\n      <<: *settings", "  ratings:\n")
    shared = shared.replace("      SERVICE_NAME: ratings\n", "    hostname: ratings\n")
    both = changed(shared, ("reviews", [protocol]), ("static", [protocol]))
    # Only the anchor's last line is a secret's, behind which the new one would stand alone.
    assert both is not None
    assert both.patch is not None
    assert both.patch.count("+  SERVICE_PROTOCOL: http") == 1


def test_what_the_file_says_already_needs_no_patch() -> None:
    """Then what runs was started before the file was changed."""
    assert changed(
        FILE,
        ("details", [Variable("SERVICE_NAME", "details")]),
        ("consul", [Element("dns", "8.8.8.8")]),
    ) == Change(None)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(FILE.replace("registrator:latest", "registrator:latest # old"), id="comment"),
        pytest.param(FILE.replace("\n", "\r\n"), id="line ends of another system"),
        pytest.param("services: {registrator: {image: a}}\n", id="all on one line, another image"),
        pytest.param("services:\n  registrator: *nothing\n", id="not YAML"),
        pytest.param("services:\n  registrator:\n", id="a service without lines"),
        pytest.param("services:\n  other:\n    image: a\n", id="no such service"),
        pytest.param(f"{FILE}  long:\n    image: {'long' * 30_000}\n", id="too long"),
    ],
)
def test_no_patch_where_it_is_not_certain(text: str) -> None:
    """Then the lines to change are printed as before."""
    edits: list[Edit] = [
        Value("image", "new", "old"),
        Variable("SERVICE_IGNORE", "1"),
        Element("dns", "1.2.3.4"),
    ]
    texts = {"compose.yaml": text if "nothing" in text else read(text)}
    assert change(texts, ["compose.yaml"], [("registrator", edits)]) is None


def test_no_patch_where_a_file_was_not_read() -> None:
    """It may set the value again, and then a change of the others would change nothing."""
    edit = Value("image", "new", "old")
    texts = {"/a/compose.yaml": read(FILE)}
    assert change(texts, ["/a/compose.yaml", "/a/over.yaml"], [("consul", [edit])]) is None
    assert change(texts, [], [("consul", [edit])]) is None


def test_of_several_files_the_one_that_sets_the_value_is_changed(tmp_path: Path) -> None:
    """The last that has it; a new variable goes where the others are."""
    over = "services:\n  consul:\n    image: consul:1.4.0\n  details:\n    tty: true\n"
    files = {f"{tmp_path}/compose.yaml": read(FILE), f"{tmp_path}/over.yaml": read(over)}
    for name, text in (("compose.yaml", FILE), ("over.yaml", over)):
        (tmp_path / name).write_text(text)
    found = change(
        files,
        list(files),
        [
            ("consul", [Value("image", "consul:1.5.0", "consul:1.4.0")]),
            ("ratings", [Variable("SERVICE_PROTOCOL", "http", "htttp")]),
        ],
    )
    assert found is not None
    assert found.patch is not None
    assert found.patch.startswith(f"# in {tmp_path}\n--- compose.yaml\n")
    for command in found.commands:
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "over.yaml").read_text() == over.replace("1.4.0", "1.5.0")
    assert (tmp_path / "compose.yaml").read_text() == FILE.replace("htttp", "http")


@pytest.mark.parametrize("end", ["", "\n", "\n\n\n", "\n# the end"])
def test_the_end_of_a_file_is_kept(end: str, tmp_path: Path) -> None:
    """Whether its last line ends or not."""
    text = f"services:\n  a:\n    image: old{end}"
    found = changed(text, ("a", [Variable("SERVICE_IGNORE", "1"), Value("image", "new", "old")]))
    after = apply(tmp_path, found, text)
    assert after == (
        f"services:\n  a:\n    image: new\n    environment:\n      - SERVICE_IGNORE=1{end}"
    )


@pytest.mark.parametrize("seed", range(40))
def test_files_of_any_shape(seed: int, tmp_path: Path) -> None:
    """Made at random: the patch applies, and of the values only the wanted one differs."""
    dice = random.Random(seed)  # noqa: S311 # no secrets are made of it
    names = ["alpha", "beta", "gamma"]
    services = {name: _service(dice) for name in names}
    text = yaml.safe_dump(
        {"version": "3", "services": services},
        indent=dice.choice((2, 4)),
        default_flow_style=dice.choice((False, None)),
        sort_keys=dice.choice((False, True)),
    )
    if dice.random() < 0.5:
        text = re.sub(r"(?m)^(  +\w+:)$", r"\n\1", text)
    wanted = dice.choice(names)
    found = changed(text, (wanted, [Variable("SERVICE_PROTOCOL", "http")]))
    if found is None:
        return
    after = yaml.safe_load(apply(tmp_path, found, text))
    match services[wanted].get("environment"):
        case dict() as pairs:
            services[wanted]["environment"] = {**pairs, "SERVICE_PROTOCOL": "http"}
        case list() as words:
            services[wanted]["environment"] = [*words, "SERVICE_PROTOCOL=http"]
        case _:
            services[wanted]["environment"] = ["SERVICE_PROTOCOL=http"]
    assert after == {"version": "3", "services": services}


def _service(dice: random.Random) -> dict[str, object]:
    service: dict[str, object] = {"image": dice.choice(("a", "b:1", "c/d:latest"))}
    form = dice.choice(("none", "list", "mapping"))
    if form == "list":
        service["environment"] = ["SERVICE_NAME=a", "SERVICE_TAGS=version|v1"]
    elif form == "mapping":
        service["environment"] = {"SERVICE_NAME": "a", "SERVICE_TAGS": "version|v1"}
    others = {
        "expose": ["9080"],
        "command": "run\nthis\n",
        "volumes": ["./a:/b"],
        "dns": "172.28.0.1",
    }
    return service | {key: value for key, value in others.items() if dice.random() < 0.5}


def test_most_files_get_a_patch() -> None:
    """The test above would pass if no patch were ever certain."""
    found = 0
    for seed in range(40):
        dice = random.Random(seed)  # noqa: S311 # no secrets are made of it
        text = yaml.safe_dump({"services": {name: _service(dice) for name in "abc"}})
        found += changed(text, ("a", [Variable("SERVICE_PROTOCOL", "http")])) is not None
    assert found > 30


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="no docker-compose here")
def test_compose_itself_reads_what_comes_of_it(tmp_path: Path) -> None:
    """`docker-compose config` of the patched file has the new values, and no other change."""
    text = re.sub(r"(?m)^  (ratings|reviews|static):$", r"  \1:\n    image: a", FILE)
    found = changed(
        text,
        ("registrator", [Value("image", "new:1", "old")]),
        ("consul", [Element("cap_add", "NET_ADMIN", first=True)]),
        ("ratings", [Variable("SERVICE_PROTOCOL", "http", "htttp")]),
    )
    before, after = (
        yaml.safe_load(_config(tmp_path, name, each))["services"]
        for name, each in (("before", text), ("after", apply(tmp_path, found, text)))
    )
    before["registrator"]["image"] = "new:1"
    before["consul"]["cap_add"] = ["NET_ADMIN"]
    before["ratings"]["labels"]["SERVICE_PROTOCOL"] = "http"
    assert after == before


def _config(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.yaml").write_text(text.replace('"3"', '"3.4"'))
    return subprocess.run(
        ["docker-compose", "-p", "edited", "-f", f"{name}.yaml", "config"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "DOCKER_GATEWAY": "172.28.0.1:"},
    ).stdout
