"""Findings that say the same are put together, and nothing else is."""

import re
from collections.abc import Mapping, Sequence

from hypothesis import given
from hypothesis import strategies as st

from meshdoctor import folding
from meshdoctor.findings import Citation, Finding, Remedy, Severity, Subject, SubjectKind
from meshdoctor.folding import MANY, Said, alike, folded, in_few_commands

NONE: Sequence[int] = ()
NUMBER = MANY + 4


def about(name: str, says: str, *remedies: Remedy) -> Finding:
    return Finding(
        says, (Subject(SubjectKind.SIDECAR, name),), (Citation(f"{name}.json"),), remedies
    )


def said(
    *findings: Finding, code: str = "XX101", severity: Severity = Severity.ERROR
) -> list[Said]:
    return [Said(code, severity, each) for each in findings]


def sizes(all_said: Sequence[Said], causes: Sequence[Sequence[int]] = ()) -> list[int]:
    return [len(each) for each in alike(all_said, causes or [NONE] * len(all_said))]


def stopped(number: int, *remedies: Remedy) -> Finding:
    name = f"web-{number}-sidecar"
    return about(name, f"{name} at 10.0.0.{number}:15000 stopped.", *remedies)


def test_names_and_addresses_alone_make_no_difference() -> None:
    assert sizes(said(*map(stopped, range(NUMBER)))) == [NUMBER]


def test_a_few_stay_apart() -> None:
    assert sizes(said(*map(stopped, range(MANY)))) == [1] * MANY


def test_another_word_is_another_thing_said() -> None:
    odd = about("api-sidecar", "api-sidecar at 10.0.0.9:15000 hangs.")
    assert sizes(said(*map(stopped, range(NUMBER)), odd)) == [NUMBER, 1]


def test_what_others_answer_for_is_no_name_of_what_it_is_about() -> None:
    """Calls that end at different services are not told as if they ended at one."""
    ended = [about(f"s{n}", f"Calls to s{n} reach other-{n} instead.") for n in range(NUMBER)]
    assert sizes(said(*ended)) == [1] * NUMBER
    at_one = [about(f"s{n}", f"Calls to s{n} reach other instead.") for n in range(NUMBER)]
    assert sizes(said(*at_one)) == [NUMBER]


def test_other_severities_and_codes_stay_apart() -> None:
    errors = said(*map(stopped, range(NUMBER)))
    warnings = said(*map(stopped, range(NUMBER)), severity=Severity.WARNING)
    others = said(*map(stopped, range(NUMBER)), code="XX102")
    assert sizes([*errors, *warnings, *others]) == [NUMBER] * 3


def test_what_has_another_cause_stays_apart() -> None:
    """Each hangs below its own cause, or all below one that was put together itself."""
    causes = said(*map(stopped, range(NUMBER)), code="XX100")
    symptoms = said(*map(stopped, range(NUMBER)))
    each_its_own = [NONE] * NUMBER + [[n] for n in range(NUMBER)]
    assert sizes([*causes, *symptoms], each_its_own) == [NUMBER, NUMBER]
    different = said(*(about(f"s{n}", "x" * (n + 1)) for n in range(NUMBER)), code="XX100")
    assert sizes([*different, *symptoms], each_its_own) == [1] * (2 * NUMBER)


def test_a_circle_of_causes_ends() -> None:
    circle = [[(n + 1) % NUMBER] for n in range(NUMBER)]
    assert sizes(said(*map(stopped, range(NUMBER))), circle) == [NUMBER]


def test_counts_may_differ_and_the_sentence_says_so() -> None:
    """How many callers a service has is no other fault."""
    them = [
        about(f"s{n}", f"Calls to s{n} get 404, from {n + 2} of 90 callers.")
        for n in range(NUMBER)
    ]
    assert sizes(said(*them)) == [NUMBER]
    assert (
        " The same, but for the numbers, is true of 11 more sidecars: s1, " in folded(them).message
    )


def test_a_status_is_no_count() -> None:
    them = [about(f"s{n}", f"Calls to s{n} get {400 + n}.") for n in range(NUMBER)]
    assert sizes(said(*them)) == [1] * NUMBER


def test_the_first_is_quoted_and_all_are_listed() -> None:
    found = folded([stopped(n) for n in range(NUMBER)])
    assert found.message == (
        "web-0-sidecar at 10.0.0.0:15000 stopped. The same is true of 11 more sidecars: "
        "web-1-sidecar, web-2-sidecar, web-3-sidecar, web-4-sidecar, web-5-sidecar, web-6-sidecar "
        "and 5 more."
    )
    assert len(found.subjects) == len(found.seen_in) == NUMBER


def test_without_a_subject_of_its_own_each_is_only_counted() -> None:
    found = folded([about("pilot", "pilot forgets something.") for _ in range(NUMBER)])
    assert found.message == "pilot forgets something. The same is said by 11 more findings."
    assert found.subjects == (Subject(SubjectKind.SIDECAR, "pilot"),)


def restarted(number: int, *before: str) -> Finding:
    name = f"web-{number}-sidecar"
    steps = (*before, f"docker restart {name}", "meshdoctor check --select XX101")
    return stopped(number, Remedy(f"Restart {name}.", steps, effect="Its calls fail meanwhile."))


def test_one_command_restarts_them_all() -> None:
    (remedy,) = folded([restarted(n) for n in range(NUMBER)]).remedies
    names = " ".join(f"web-{n}-sidecar" for n in range(NUMBER))
    assert remedy.summary == "Restart web-0-sidecar. Likewise for the others."
    assert remedy.commands == (f"docker restart {names}", "meshdoctor check --select XX101")


def test_a_step_that_one_needs_more_comes_first() -> None:
    them = [restarted(0, "patch web-0.yaml"), *(restarted(n) for n in range(1, NUMBER))]
    (remedy,) = folded(them).remedies
    assert remedy.commands[0] == "patch web-0.yaml"
    assert len(remedy.commands) == len(["patch", "restart", "check"])


def test_a_command_for_one_thing_alone_is_given_for_each() -> None:
    """Docker attaches to one container, and prints the logs of one."""
    logs = tuple(f"docker logs --tail 50 web-{n}" for n in range(NUMBER))
    starts = tuple(f"docker start -a web-{n}" for n in range(NUMBER))
    on_hosts = tuple(f"docker restart web-{n}  # on east" for n in range(NUMBER))
    remedy = Remedy("Look.", (*logs, *starts, *on_hosts))
    assert in_few_commands(remedy) == remedy


def test_compose_takes_many_services() -> None:
    up = "docker compose -p shop -f shop.yaml up -d --no-deps --force-recreate"
    remedy = Remedy("Again.", tuple(f"{up} web-{n}" for n in range(NUMBER)))
    (command,) = in_few_commands(remedy).commands
    assert command == f"{up} {' '.join(f'web-{n}' for n in range(NUMBER))}"


def test_of_very_many_names_there_are_several_commands() -> None:
    remedy = Remedy("Again.", tuple(f"docker restart web-{n}" for n in range(250)))
    assert [each.count("web-") for each in in_few_commands(remedy).commands] == [100, 100, 50]


def test_one_command_with_very_many_names_is_divided() -> None:
    names = " ".join(f"web-{n}-of-a-long-name" for n in range(250))
    remedy = Remedy("Again.", (f"docker compose -p shop up -d {names}", "meshdoctor check"))
    *steps, last = in_few_commands(remedy).commands
    assert [each.count("web-") for each in steps] == [100, 100, 50]
    assert {" ".join(each.split()[:6]) for each in steps} == {"docker compose -p shop up -d"}
    assert last == "meshdoctor check"


def test_remedies_that_name_more_are_put_together_by_their_place() -> None:
    """What a file is to be called, the finding does not say; it is the same step with each."""
    them = [
        stopped(n, Remedy(f"Write {'x' * n}.hcl."), Remedy("Or remove it.")) for n in range(NUMBER)
    ]
    assert [each.summary for each in folded(them).remedies] == [
        "Write .hcl. Likewise for the others.",
        "Or remove it.",
    ]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 40), max_size=3)), max_size=41)
)
def test_every_finding_is_told_once(drawn: list[tuple[int, list[int]]]) -> None:
    """Whatever they say and whatever causes them, circles too."""
    them = said(*(about(f"s{n}", f"s{n} {'x' * word}") for n, (word, _) in enumerate(drawn)))
    causes = [[each for each in its if each < len(drawn)] for _, its in drawn]
    groups = alike(them, causes)
    assert sorted(index for group in groups for index in group) == list(range(len(drawn)))
    assert all(len(group) == 1 or len(group) > MANY for group in groups)
    group_of = {index: number for number, group in enumerate(groups) for index in group}
    for group in groups:
        assert len({frozenset(group_of[cause] for cause in causes[each]) for each in group}) == 1


def _by_expression(names: Mapping[str, SubjectKind], text: str) -> str:
    """The same, as a regular expression says it."""
    if not names:
        return text
    alternatives = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pattern = rf"(?<![^\W_])(?:{alternatives})(?![^\W_])"
    return re.sub(pattern, lambda found: f"\0{names[found[0]]}", text)


_KINDS = (SubjectKind.SERVICE, SubjectKind.SIDECAR)
_WORDS = st.text("ab-_. é1", min_size=1, max_size=4)


@given(
    st.dictionaries(
        _WORDS, st.sampled_from((SubjectKind.SERVICE, SubjectKind.SIDECAR)), max_size=4
    ),
    st.text("ab-_. é1", max_size=20),
)
def test_names_are_found_as_words_the_longest_first(
    names: dict[str, SubjectKind], text: str
) -> None:
    """`web` is no part of `webhook`, and `web-1` is not `web`."""
    assert folding.without_names(names, text) == _by_expression(names, text)
