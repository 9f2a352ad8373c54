"""Compose files decoded: forms, merging, variables, and what no file may do to the decoder."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdoctor.evidence.compose import ComposeFiles, ComposeService, read_variables
from meshdoctor.evidence.interface import DecodeError
from meshdoctor.topology.plan import Plan

CASES = Path(__file__).parents[2] / "fixtures" / "compose"


def decoded(
    *texts: str,
    environment: Mapping[str, str] | None = None,
    beside: Mapping[str, str] | None = None,
) -> ComposeFiles:
    """The files `a.yaml`, `b.yaml`, ... of a folder `shop`."""
    return ComposeFiles.of(
        list(zip((f"{letter}.yaml" for letter in string.ascii_lowercase), texts, strict=False)),
        folder="shop",
        environment=environment or {},
        read=(beside or {}).get,
    )


def web(text: str, **more: Any) -> ComposeService:
    """The service `web` with that body."""
    body = "\n".join(f"    {line}" for line in text.splitlines())
    return decoded(f"services:\n  web:\n{body}\n", **more).services["web"]


def values(settings: Any) -> Any:
    """What is set, without where."""
    if isinstance(settings, Mapping):
        return {key: each.value for key, each in settings.items()}
    return [each.value for each in settings or ()]


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    "text",
    [
        "environment: [SERVICE_NAME=web, SERVICE_TAGS=a=b, EMPTY=]",
        "environment: {SERVICE_NAME: web, SERVICE_TAGS: a=b, EMPTY: ''}",
        "environment:\n  - SERVICE_NAME=web\n  - SERVICE_TAGS=a=b\n  - EMPTY=",
    ],
)
def test_an_environment_is_a_list_or_a_mapping(text: str) -> None:
    """Both say the same."""
    assert values(web(text).environment) == {
        "SERVICE_NAME": "web",
        "SERVICE_TAGS": "a=b",
        "EMPTY": "",
    }


@pytest.mark.parametrize(
    "text", ["environment: [GIVEN, OTHER]", "environment: {GIVEN: , OTHER: }"]
)
def test_a_variable_without_a_value_is_passed_on(text: str) -> None:
    """From who runs Compose; where nobody set it there is none."""
    assert values(web(text, environment={"GIVEN": "1"}).environment) == {"GIVEN": "1"}


def test_values_stay_as_they_were_written() -> None:
    """No boolean, no float, no number to the base of sixty."""
    service = web("environment: {A: on, B: 1.10, C: 0x10}\nports: [22:22]")
    assert values(service.environment) == {"A": "on", "B": "1.10", "C": "0x10"}
    assert [(each.port, each.host_port) for each in service.ports] == [(22, 22)]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("9080", [(9080, "tcp", "", 0)]),
        ("8080:9080", [(9080, "tcp", "", 8080)]),
        ("172.28.0.1:53:8600/udp", [(8600, "udp", "172.28.0.1", 53)]),
        ("'[::1]:80:9080'", [(9080, "tcp", "::1", 80)]),
        ("9080-9081", [(9080, "tcp", "", 0), (9081, "tcp", "", 0)]),
        ("80-81:9080-9081", [(9080, "tcp", "", 80), (9081, "tcp", "", 81)]),
        ("80-85:9080", [(9080, "tcp", "", 0)]),
        ("{target: 9080, published: '80', host_ip: 10.0.0.1}", [(9080, "tcp", "10.0.0.1", 80)]),
        ("{target: 8600, protocol: udp}", [(8600, "udp", "", 0)]),
    ],
)
def test_ports_short_and_long(written: str, expected: list[tuple[int, str, str, int]]) -> None:
    """Every form of the specification."""
    found = web(f"ports:\n  - {written}").ports
    assert [(p.port, p.protocol, p.host_address, p.host_port) for p in found] == expected


@pytest.mark.parametrize("text", ["dns: 10.0.0.1", "dns: [10.0.0.1]", "dns:\n  - 10.0.0.1"])
def test_one_dns_server_or_a_list(text: str) -> None:
    """Both say the same."""
    assert values(web(text).dns) == ["10.0.0.1"]


@pytest.mark.parametrize("text", ["command: -a 'b c'", "command: [-a, b c]"])
def test_a_command_is_words_or_a_line(text: str) -> None:
    """A line is split as a shell would."""
    assert values(web(text).command) == ["-a", "b c"]


def test_lines_and_pointers() -> None:
    """Of the key, counted from 1; a merged value has the line it is written on."""
    files = decoded(
        "x-all: &all\n  dns: [10.0.0.1]\n"
        "services:\n  web:\n    <<: *all\n    labels:\n      a/b: c\n"
    )
    service = files.services["web"]
    assert (service.place.line, service.place.pointer) == (4, "/services/web")
    assert service.dns[0].place.line == 2
    assert service.labels["a/b"].place.pointer == "/services/web/labels/a~1b"
    assert service.labels["a/b"].place.line == 7
    assert service.place.document == "compose/a.yaml"


def test_own_keys_beat_merged_ones_and_earlier_merges_later_ones() -> None:
    """As YAML's merge key has it."""
    files = decoded(
        "a: &a {image: a, user: a}\nb: &b {image: b, hostname: b}\n"
        "services: {web: {<<: [*a, *b], user: own}}\n"
    )
    service = files.services["web"]
    assert service.image is not None
    assert service.user is not None
    assert service.hostname is not None
    assert [service.image.value, service.user.value, service.hostname.value] == ["a", "own", "b"]


# ---------------------------------------------------------------- variables


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("$SET-x", "yes-x"),
        ("${SET}", "yes"),
        ("${SET:-no}", "yes"),
        ("${UNSET:-no}", "no"),
        ("${EMPTY:-no}", "no"),
        ("${EMPTY-no}", ""),
        ("${UNSET-}", ""),
        ("${UNSET:-${SET}}", "yes"),
        ("${SET:+there}", "there"),
        ("${UNSET+there}", ""),
        ("${SET:?must}", "yes"),
        ("$$SET $${SET}", "$SET ${SET}"),
        ("${UNSET}53:8600", "53:8600"),
    ],
)
def test_variables(written: str, expected: str) -> None:
    """As Compose replaces them; the environment beats `.env`."""
    service = web(
        f"image: '{written}'",
        environment={"SET": "yes", "EMPTY": ""},
        beside={".env": "SET=beside"},
    )
    assert service.image is not None
    assert service.image.value == expected


def test_variables_that_nobody_set_are_told() -> None:
    """With a default nobody misses them."""
    service = web("image: ${A}${B:-b}$C", beside={".env": "# note\nexport C='c d' # end\n"})
    assert service.image is not None
    assert (service.image.value, service.image.unset) == ("bc d", ("A",))


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("${A:?say which}", "a.yaml, line 3: the variable A must be set: say which"),
        ("${A", "line 3: a `${` without a variable"),
        ("$ ", "line 3: a `$` without a variable"),
        ("${A!b}", "does not go on as a variable may"),
        ("${A:-" * 30 + "}" * 30, "too deep"),
        ("$BIG" * 70, "too long"),
    ],
)
def test_what_compose_refuses_of_variables(written: str, said: str) -> None:
    """With file and line."""
    with pytest.raises(DecodeError) as raised:
        web(f"image: '{written}'", environment={"BIG": "x" * 1000})
    assert said in str(raised.value)


def test_an_env_file_is_read_where_it_may_be() -> None:
    """`environment` beats it; one that is not read is told."""
    text = "env_file: [all.env, ../far.env, {path: more.env}]\nenvironment: {B: own}"
    beside = {"all.env": "A=1\nB=2\n", "more.env": "A=3"}
    files = decoded(
        f"services:\n  web:\n    {text.replace(chr(10), chr(10) + '    ')}", beside=beside
    )
    assert values(files.services["web"].environment) == {"A": "3", "B": "own"}
    assert files.services["web"].environment["A"].place.file == "more.env"
    assert ["../far.env was not read" in each.message for each in files.problems] == [True]


def test_lines_of_an_env_file() -> None:
    """Comments, quotes, `export`, and names without a value."""
    text = "\n# no\nA=1 # one\nexport B='x # y'\nC\nD=\"q\"\nE=a=b\n"
    assert list(read_variables(text)) == [
        ("A", "1", 3),
        ("B", "x # y", 4),
        ("C", None, 5),
        ("D", "q", 6),
        ("E", "a=b", 7),
    ]


# ---------------------------------------------------------------- several files


def test_later_files_add_to_lists_and_replace_values() -> None:
    """As `docker compose -f a -f b` does."""
    files = decoded(
        "services: {web: {image: a, command: x y, ports: ['80'], "
        "environment: [A=1, B=1], dns: 1.1.1.1}}",
        "services: {web: {image: b, command: z, ports: ['80', '81'], "
        "environment: {B: 2}, dns: 2.2.2.2}}",
    )
    service = files.services["web"]
    assert service.image is not None
    assert service.image.value == "b"
    assert service.image.place.file == "b.yaml"
    assert values(service.command) == ["z"]
    assert [each.port for each in service.ports] == [80, 81]
    assert values(service.environment) == {"A": "1", "B": "2"}
    assert values(service.dns) == ["1.1.1.1", "2.2.2.2"]


def test_reset_and_override() -> None:
    """The specification's tags take away what an earlier file said."""
    service = decoded(
        "services: {web: {image: a, user: root, ports: ['80'], cap_add: [ALL]}}",
        "services: {web: {user: !reset null, ports: !override ['81'], cap_add: !reset []}}",
    ).services["web"]
    assert service.user is None
    assert [each.port for each in service.ports] == [81]
    assert service.capabilities == ()


def test_extends() -> None:
    """In the file, and in one beside it; what is not read is told."""
    files = decoded(
        "services:\n  base: {image: a, environment: [A=1, B=1]}\n"
        "  web: {extends: base, environment: [B=2]}\n"
        "  api: {extends: {file: other.yaml, service: base}}\n"
        "  job: {image: j, extends: {file: ../far.yaml, service: base}}\n",
        beside={"other.yaml": "services: {base: {image: o}}"},
    )
    images = {name: each.image for name, each in files.services.items()}
    assert {name: each.value for name, each in images.items() if each is not None} == {
        "base": "a",
        "web": "a",
        "api": "o",
        "job": "j",
    }
    assert values(files.services["web"].environment) == {"A": "1", "B": "2"}
    assert "../far.yaml, which was not read" in files.problems[0].message


def test_profiles_that_are_not_enabled_are_left_out() -> None:
    """Unless COMPOSE_PROFILES enables them."""
    text = "services: {web: {image: a}, job: {image: b, profiles: [jobs]}}"
    assert (set(decoded(text).services), set(decoded(text).left_out)) == ({"web"}, {"job"})
    assert "job" in decoded(text, environment={"COMPOSE_PROFILES": "x,jobs"}).services


@pytest.mark.parametrize(
    ("container", "service"),
    [
        ("shop_web_1", "web"),
        ("shop-web-1", "web"),
        ("other_web_1", "web"),
        ("shop_web-v1_1", "web-v1"),
        ("named", "api"),
        ("shop_api_1", None),
        ("web", None),
    ],
)
def test_the_service_of_a_container_name(container: str, service: str | None) -> None:
    """As Compose v1 and v2 name containers, in any project, or as the file does."""
    files = decoded("services: {web: {}, web-v1: {}, api: {container_name: named}}")
    found = files.service_of(container)
    assert (found.name if found is not None else None) == service


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {<<: *a}\nservices: {web: *a}",
        "services: {web: &w {extends: web}}",
        "services: {a: {extends: b}, b: {extends: a}}",
        "services: {web: {ports: ['1-65535', '1-65535', '1-65535', '1-65535']}}",
        "x: " + "[" * 5000,
        "services: {web: {? [a] : b}}",
        "services: {web: {environment: {A: [1]}}}",
        "services: {web: {environment: 1}}",
        "services: [web]",
        "services: {web: text}",
        "services: {web: {ports: [0, 70000]}}",
        "a: 1\n---\nb: 2",
        "services: {web: {image: \x00}}",
        "%YAML 9.9\n---\nservices: {}",
        "services: {web: !!python/object:os.system {image: 1, ports: [x]}}",
    ],
)
def test_what_no_file_may_say(text: str) -> None:
    """Each is refused, with the file."""
    with pytest.raises(DecodeError) as raised:
        decoded(text)
    assert str(raised.value).startswith("a.yaml")


def test_anchors_do_not_make_a_small_file_large() -> None:
    """Ten merges of ten merges, and a long environment named again and again."""
    bomb = "x0: &x0 {k: v}\n"
    for level in range(1, 15):
        bomb += f"x{level}: &x{level} {{<<: [{', '.join([f'*x{level - 1}'] * 10)}]}}\n"
    assert set(decoded(f"{bomb}services: {{web: *x14}}").services) == {"web"}
    variables = ", ".join(f"V{number}: 1" for number in range(2000))
    services = ", ".join(f"s{number}: {{environment: *e}}" for number in range(2000))
    with pytest.raises(DecodeError, match="larger than any mesh"):
        decoded(f"x: &e {{{variables}}}\nservices: {{{services}}}")


def judged(text: str) -> None:
    """Decoded and planned, or refused by a decode error."""
    try:
        files = decoded(text, beside={".env": text, "all.env": text, "other.yaml": text})
    except DecodeError:
        return
    plan = Plan.of(files)
    assert plan.notes is not None
    assert plan.is_mesh in (True, False)


@given(st.text(alphabet=st.sampled_from("services: {}[]&*<-#!|>'\"\n\t$0azé\x85"), max_size=200))
@settings(deadline=None)
def test_any_text_is_decoded_or_refused(text: str) -> None:
    """Nothing but evidence or a decode error."""
    judged(text)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a$-:{}1|/", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab$", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A file of a fixture with one value replaced by anything, or taken out."""
    path = draw(st.sampled_from(sorted((CASES / "mended").glob("*.yaml"))))
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    here: Any = document
    for _ in range(draw(st.integers(1, 5))):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw(st.sampled_from(keys))
        if not isinstance(here[key], (dict, list)) or not here[key] or draw(st.booleans()):
            break
        here = here[key]
    else:
        key = next(iter(here)) if isinstance(here, dict) else 0
    if draw(st.booleans()):
        del here[key]
    else:
        here[key] = draw(_JSON)
    return yaml.safe_dump(document)


@given(damaged())
@settings(deadline=None)
def test_damage_is_evidence_or_a_decode_error(text: str) -> None:
    """Dropped keys, wrong types, strange values."""
    judged(text)


def test_a_file_may_name_the_project() -> None:
    """The environment names it first, the folder last."""
    text = "name: Mall\nservices: {web: {image: web}}"
    assert decoded(text).project == "mall"
    assert decoded(text, environment={"COMPOSE_PROJECT_NAME": "fair"}).project == "fair"
    assert decoded("services: {web: {image: web}}").project == "shop"


def test_a_network_that_is_only_named_again_keeps_what_was_said_of_it() -> None:
    """An override attaches services to it, and says nothing more."""
    first = "services: {}\nnetworks: {mesh: {ipam: {config: [{subnet: 10.1.0.0/16}]}}}"
    again = decoded(first, "services: {}\nnetworks: {mesh: {}}").networks["mesh"]
    assert again == decoded(first).networks["mesh"]
    assert again.subnets


def test_two_services_may_extend_one_file() -> None:
    """It is read once, and each gets its own service of it."""
    text = (
        "services:\n"
        "  web: {extends: {file: base.yaml, service: app}, hostname: web}\n"
        "  api: {extends: {file: base.yaml, service: app}, hostname: api}\n"
    )
    found = decoded(text, beside={"base.yaml": "services: {app: {image: app}}"})
    for name in ("web", "api"):
        image = found.services[name].image
        assert image is not None
        assert (image.value, str(image.place)) == ("app", "base.yaml:1")


def test_what_extends_a_service_that_is_not_there() -> None:
    """The line is named, and both."""
    with pytest.raises(DecodeError, match=r"web extends nobody, which is not in a\.yaml"):
        decoded("services: {web: {extends: nobody}}")


def test_a_variable_without_a_value_is_taken_from_the_environment_or_not_at_all() -> None:
    """In an env_file as in `environment`."""
    text = "image: web\nenv_file: web.env\nenvironment: [THIRD]"
    files = {"web.env": "FIRST\nSECOND\n"}
    service = web(text, beside=files, environment={"SECOND": "2"})
    assert values(service.environment) == {"SECOND": "2"}


@pytest.mark.parametrize(
    "text", ["depends_on: [db, cache]", "depends_on: {db: {condition: started}, cache: {}}"]
)
def test_dependencies_are_a_list_or_a_mapping(text: str) -> None:
    """Both say on whom."""
    assert values(web(text).depends_on) == ["db", "cache"]
