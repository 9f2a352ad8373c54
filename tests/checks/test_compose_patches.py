"""Where the Compose files of a mesh could be read, its remedies hold patches of them."""

import re
import subprocess
from pathlib import Path

import pytest

from meshdoctor.evidence.layout import compose_file
from meshdoctor.findings import Remedy
from meshdoctor.snapshot.redaction import redact
from tests.checks.editing import Recording

CONTROL_PLANE = """\
version: "3"
services:
  consul:
    image: consul:1.3.0
  registrator:
    # its host name changes with every new container
    image: gliderlabs/registrator:latest
    command: -internal consul://consul:8500
  pilot:
    image: docker.io/istio/pilot:1.1.0
    environment:
      SERVICE_NAME: pilot
"""
APPLICATIONS = """\
services:
  details-v1:
    image: istio/examples-bookinfo-details-v1:1.10.1
    environment:
      - SERVICE_NAME=details
      - SERVICE_PROTOCOL=http
      - TOKEN=hunter2
"""


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    """The mesh of the story, its Compose files in a folder that is there."""
    recording = Recording("broken")
    recording.replace({"/srv/mesh": str(tmp_path)})
    for name, text in (
        ("install/consul/control-plane.yaml", CONTROL_PLANE),
        ("bookinfo/bookinfo.yaml", APPLICATIONS),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        document = compose_file(str(path))
        recording.documents[document] = redact(document, text.encode())[0]
    return recording


def remedy(recording: Recording, code: str) -> Remedy:
    """The first remedy of the first finding with a code."""
    found = [each for each in recording.report().findings if each.code == code]
    return found[0].remedies[0]


def test_registrators_image_is_changed_in_the_very_file(
    recording: Recording, tmp_path: Path
) -> None:
    """MD202: a diff with the file's own lines, and the command that applies it comes first."""
    mend = remedy(recording, "MD202")
    folder = tmp_path / "install" / "consul"
    assert mend.patch == (
        f"# in {folder}\n"
        "--- control-plane.yaml\n"
        "+++ control-plane.yaml\n"
        # The comment before it is nothing to quote.
        "@@ -7,2 +7,2 @@\n"
        "-    image: gliderlabs/registrator:latest\n"
        "+    image: gliderlabs/registrator:master\n"
        "     command: -internal consul://consul:8500"
    )
    assert not any(each.startswith("sed") for each in mend.commands)
    subprocess.run(["sh", "-c", mend.commands[0]], check=True, stdout=subprocess.DEVNULL)
    file = folder / "control-plane.yaml"
    assert file.read_text(encoding="utf-8") == CONTROL_PLANE.replace(":latest", ":master")
    assert mend.commands[1].startswith("docker-compose -p consul -f ")


def test_what_the_file_has_already_is_only_started_again(
    recording: Recording, tmp_path: Path
) -> None:
    """The file was mended, and what runs is older: nothing to patch, and no sed either."""
    document = compose_file(f"{tmp_path}/install/consul/control-plane.yaml")
    text = recording.documents[document].decode()
    recording.documents[document] = text.replace(":latest", ":master").encode()
    mend = remedy(recording, "MD202")
    assert mend.patch is None
    assert not any(re.match("sed|printf", each) for each in mend.commands)
    assert any(" up -d " in each for each in mend.commands)


def test_a_variable_is_written_as_the_service_writes_its_own(
    recording: Recording, tmp_path: Path
) -> None:
    """MD209: into Pilot's mapping, a number in quotes."""
    mend = remedy(recording, "MD209")
    assert mend.patch is not None
    assert '+      SERVICE_IGNORE: "1"' in mend.patch
    subprocess.run(["sh", "-c", mend.commands[0]], check=True, stdout=subprocess.DEVNULL)
    file = tmp_path / "install" / "consul" / "control-plane.yaml"
    assert file.read_text(encoding="utf-8") == f'{CONTROL_PLANE}      SERVICE_IGNORE: "1"\n'


def test_without_the_files_there_is_the_fragment() -> None:
    """As of a mesh on another host: which lines, of which file."""
    mend = remedy(Recording("broken"), "MD202")
    assert mend.patch == (
        "# /srv/mesh/install/consul/control-plane.yaml\n"
        "   registrator:\n"
        "-    image: gliderlabs/registrator:latest\n"
        "+    image: gliderlabs/registrator:master"
    )
    assert mend.commands[0].startswith("sed ")
