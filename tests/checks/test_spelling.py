"""The name that was probably meant is looked for, but not without end."""

from meshdoctor_checks.spelling import MOST_SOUGHT, Spelling


def test_the_nearest_is_found() -> None:
    spelling = Spelling(["reviews", "ratings"], cutoff=0.75)
    assert spelling.nearest("reveiws") == "reviews"
    assert not spelling.nearest("details")


def test_of_very_many_the_first_are_looked_for() -> None:
    """Each costs a look at all names: a thousand unknown ones are no spelling mistakes."""
    spelling = Spelling(["reviews"], cutoff=0.75)
    found = [spelling.nearest("reviws") for _ in range(MOST_SOUGHT + 1)]
    assert found == ["reviews"] * MOST_SOUGHT + [""]
