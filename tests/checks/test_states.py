"""How it is said that containers do not run."""

import pytest

from meshdoctor.evidence.docker import Container
from meshdoctor_checks import states


@pytest.mark.parametrize(
    ("container", "one", "several"),
    [
        (
            Container(id="1", name="a", status="exited", exit_code=127),
            "stopped with exit code 127 (its program is not there)",
            "stopped with exit code 127 (their program is not there)",
        ),
        (Container(id="1", name="a", status="paused"), "is paused", "are paused"),
        (
            Container(id="1", name="a", status="restarting", restart_count=2, exit_code=1),
            "restarts again and again (2 times so far, last exit code 1)",
            "restart again and again (2 times so far, last exit code 1)",
        ),
    ],
    ids=["stopped", "paused", "restarting"],
)
def test_one_and_several(container: Container, one: str, several: str) -> None:
    assert (states.how(container), states.how(container, 2)) == (one, several)
