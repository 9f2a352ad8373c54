"""What is read of a kubeconfig, and what never is."""

import json
from pathlib import Path
from typing import Any

import pytest

from meshdoctor.collectors import kube
from meshdoctor.collectors.interface import AnswerError, NotAnsweringError

CONFIG = """\
apiVersion: v1
kind: Config
current-context: mesh
clusters:
- name: mesh
  cluster: {server: "http://127.0.0.1:8080", certificate-authority-data: pl4nted}
contexts:
- name: mesh
  context: {cluster: mesh, user: admin, namespace: shop}
users:
- name: admin
  user: {token: pl4nted, client-key-data: pl4nted}
"""


def read(*paths: Path) -> Any:
    return json.loads(kube.read({"KUBECONFIG": ":".join(map(str, paths))}))


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_names_and_servers_are_kept_and_nothing_else(tmp_path: Path) -> None:
    """Credentials never leave the function that reads the file."""
    assert read(written(tmp_path / "config", CONFIG)) == {
        "current-context": "mesh",
        "contexts": [{"name": "mesh", "context": {"cluster": "mesh"}}],
        "clusters": [{"name": "mesh", "cluster": {"server": "http://127.0.0.1:8080"}}],
    }


def test_without_the_variable_it_is_in_the_home_folder(tmp_path: Path) -> None:
    """As kubectl has it."""
    written(tmp_path / ".kube" / "config", CONFIG)
    assert json.loads(kube.read({"HOME": str(tmp_path)}))["current-context"] == "mesh"


def test_several_files_are_merged_as_kubectl_does(tmp_path: Path) -> None:
    """The first to say a thing wins; a file that is not there is passed over."""
    other = CONFIG.replace("8080", "9999").replace("context: mesh", "context: other")
    more = "clusters:\n- {name: more, cluster: {server: https://more}}\n"
    merged = read(
        tmp_path / "absent",
        written(tmp_path / "first", CONFIG),
        written(tmp_path / "second", other),
        written(tmp_path / "third", more),
    )
    assert merged["current-context"] == "mesh"
    assert [each["cluster"]["server"] for each in merged["clusters"]] == [
        "http://127.0.0.1:8080",
        "https://more",
    ]


@pytest.mark.parametrize("text", ["[1, 2]", "no", "", "a: [", "\0", "- - - -", "a: 2026-13-45"])
def test_what_is_no_kubeconfig_is_said_without_a_word_of_it(tmp_path: Path, text: str) -> None:
    """A parser likes to quote the line it stopped at, which may be a token."""
    file = written(tmp_path / "config", f"{text}\n# pl4nted\n")
    with pytest.raises(AnswerError, match="KUBECONFIG") as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert "pl4nted" not in str(caught.value)


def test_a_list_that_holds_itself_is_no_trouble(tmp_path: Path) -> None:
    """YAML allows it; only text is taken out of it."""
    assert read(written(tmp_path / "config", "contexts: &a [*a]"))["contexts"] == []


@pytest.mark.parametrize(
    "text",
    [
        "current-context: 7",
        "contexts: {a: b}",
        "contexts: [1, {name: 2}, {name: a, context: []}]",
        "clusters: [{name: a, cluster: {server: [x]}}]",
        "clusters: [{name: a}]",
    ],
)
def test_fields_of_another_form_are_left_out(tmp_path: Path, text: str) -> None:
    """What stays is text."""
    found = read(written(tmp_path / "config", text))
    assert found["current-context"] == ""
    assert all(each["cluster"]["server"] == "" for each in found["clusters"])


def test_where_there_is_none_the_place_is_said(tmp_path: Path) -> None:
    """Also where nothing tells whose home it would be in."""
    with pytest.raises(NotAnsweringError) as caught:
        kube.read({"HOME": str(tmp_path)})
    assert str(tmp_path / ".kube" / "config") in str(caught.value)
    with pytest.raises(NotAnsweringError, match=r"~/\.kube/config"):
        kube.read({})


def test_a_folder_is_no_kubeconfig(tmp_path: Path) -> None:
    """The system's word for it is passed on."""
    with pytest.raises(NotAnsweringError, match="directory"):
        read(tmp_path)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """A kubeconfig is never a megabyte."""
    with pytest.raises(AnswerError, match="larger"):
        read(written(tmp_path / "config", f"# {'x' * 2**20}"))
