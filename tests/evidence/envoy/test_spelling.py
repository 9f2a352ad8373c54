"""The two spellings in which Envoy's messages are written."""

import pytest

from meshdoctor.evidence.envoy import spelling


@pytest.mark.parametrize(
    ("pointer", "deeper"),
    [
        (
            "/configs/2/dynamic_listeners/0/active_state/listener",
            "/configs/2/dynamic_listeners/0/active_state/listener/filter_chains/1/filters/0",
        ),
        (
            "/configs/2/dynamicActiveListeners/0/listener",
            "/configs/2/dynamicActiveListeners/0/listener/filterChains/1/filters/0",
        ),
        ("/configs/2", "/configs/2/filter_chains/1/filters/0"),
    ],
)
def test_a_pointer_goes_on_as_it_begins(pointer: str, deeper: str) -> None:
    """Where it does not tell, it is Envoy's own spelling."""
    assert spelling.below(pointer, "filter_chains", 1, "filters", 0) == deeper
