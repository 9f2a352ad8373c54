"""What a kubeconfig tells, and what of it survives damage."""

import json
from typing import Any, Final

import pytest
from hypothesis import given

from meshdoctor.evidence.interface import DecodeError, MissingEvidenceError, Problem
from meshdoctor.evidence.kube import CONFIG, KubeConfig
from meshdoctor.snapshot import Snapshot
from tests.evidence.damage import damaged, few, mangled, snapshot

TWO: Final[dict[str, Any]] = {
    "current-context": "mesh",
    "contexts": [
        {"name": "mesh", "context": {"cluster": "istio"}},
        {"name": "astray", "context": {"cluster": "nowhere"}},
    ],
    "clusters": [{"name": "istio", "cluster": {"server": "http://127.0.0.1:8080"}}],
}


def load(config: Any) -> KubeConfig:
    return KubeConfig.load(snapshot({CONFIG: config}))


def test_each_context_has_its_server() -> None:
    """One whose cluster is not defined has none."""
    config = load(TWO)
    assert config.current == "mesh"
    assert config.contexts == {"mesh": "http://127.0.0.1:8080", "astray": ""}


def test_an_empty_one_has_no_context() -> None:
    """Which is where kubectl goes to localhost:8080."""
    assert (load({}).current, load({"contexts": None}).contexts) == ("", {})


def test_without_one_the_reason_is_said() -> None:
    """What the collector said is what the user reads, with what to do."""
    with pytest.raises(MissingEvidenceError, match="there is no kubeconfig") as caught:
        KubeConfig.load(Snapshot({}, absent=(Problem(CONFIG, "there is no kubeconfig"),)))
    assert "KUBECONFIG" in caught.value.hint


@few
@given(damaged(json.dumps(TWO)) | mangled(json.dumps(TWO)))
def test_changed_configs(body: bytes) -> None:
    """Whatever it looks like, there are facts or a word about what is wrong."""
    try:
        config = load(body)
    except DecodeError:
        return
    assert all(isinstance(each, str) for pair in config.contexts.items() for each in pair)
