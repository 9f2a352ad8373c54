"""The lab's images, made of files on this machine, under the names that its Compose files have.

What each contains is said at `images`. A layer of programs is imported once and kept while its
files stay the same; the named images only add settings to it.
"""

import hashlib
import importlib.metadata
import io
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import docker.errors

from tests.live import go_programs
from tests.live.mesh import NoMeshError, envoy, libraries, program

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[2]
_USERS: Final = "root:x:0:0::/:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\n"
_XTABLES: Final = ("libxt_owner.so", "libxt_tcp.so", "libxt_REDIRECT.so", "libxt_standard.so")
_UNUSED: Final = frozenset(
    {"__pycache__", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tkinter"}
)
_PACKAGES: Final = ("xds-protos", "grpcio", "protobuf", "typing_extensions")
_MADE_OF: Final = "meshdoctor-lab"
_SITE: Final = "usr/local/lib/lab"
"""Where the control plane and the packages it needs stand in its image."""

Files = dict[str, bytes | Path]


@dataclass(frozen=True)
class Image:
    """A name, the layer it is made of, and the settings that its Dockerfile has."""

    name: str
    layer: str
    settings: tuple[str, ...] = ()


def images() -> tuple[Image, ...]:
    """All of them. etcd, Consul and Envoy are the real ones; the others are the lab's own."""
    applications = (
        ("details", "v1"),
        ("ratings", "v1"),
        ("reviews", "v1"),
        ("reviews", "v2"),
        ("reviews", "v3"),
        ("productpage", "v1"),
    )
    registrator = 'ENTRYPOINT ["/bin/registrator"]'
    return (
        Image("quay.io/coreos/etcd:v3.4.23", "etcd", ("EXPOSE 2379",)),
        Image("gcr.io/google_containers/kube-apiserver-amd64:v1.7.3", "python", ("EXPOSE 8080",)),
        Image("consul:1.14.11", "consul", ("EXPOSE 8500", "EXPOSE 8600/udp")),
        Image(
            "gliderlabs/registrator:master", "python", ("ENV REGISTRATOR_METADATA=1", registrator)
        ),
        *(
            Image(
                f"gliderlabs/registrator:{tag}",
                "python",
                ("ENV REGISTRATOR_METADATA=0", registrator),
            )
            for tag in ("latest", "v7")
        ),
        Image(
            "istio/pilot:lab",
            "pilot",
            (
                'ENTRYPOINT ["/usr/local/bin/pilot-discovery"]',
                "EXPOSE 15003 15005 15007 15010 15014",
            ),
        ),
        Image(
            "istio/proxy_init:0.7.1",
            "redirect",
            ('ENTRYPOINT ["/usr/local/bin/istio-iptables.sh"]',),
        ),
        Image("istio/proxy_debug:1.1.0", "proxy"),
        *(
            Image(
                f"istio/examples-bookinfo-{service}-{version}:1.10.1",
                "python",
                (
                    f"ENV LAB_SERVICE={service} LAB_VERSION={version}",
                    "EXPOSE 9080",
                    'CMD ["/usr/local/bin/application", "serve"]',
                ),
            )
            for service, version in applications
        ),
    )


def make(engine: Any, say: Any = print) -> None:
    """Make what is not there yet, and give all names. Raises NoMeshError."""
    layers = {
        "etcd": lambda: _with_shell({"usr/local/bin/etcd": program("etcd")}),
        "consul": lambda: _with_shell({"bin/consul": go_programs.consul()}),
        "python": _python,
        "pilot": _pilot,
        "redirect": _redirect,
        "proxy": _proxy,
    }
    ids: dict[str, str] = {}
    for layer, files in layers.items():
        contents = files()
        tag = f"meshdoctor-lab/{layer}:{_digest(contents)}"
        try:
            engine.inspect_image(tag)
        except docker.errors.ImageNotFound:
            say(f"making {tag}")
            repository, _, version = tag.partition(":")
            engine.import_image_from_data(_tar(contents), repository=repository, tag=version)
        ids[layer] = tag
    for image in images():
        recipe = "\n".join((f"FROM {ids[image.layer]}", *image.settings))
        made = hashlib.sha256(recipe.encode()).hexdigest()[:16]
        if _is_there(engine, image.name, made):
            continue
        file = f'{recipe}\nLABEL {_MADE_OF}="{made}"\n'
        for line in engine.build(
            fileobj=io.BytesIO(file.encode()), tag=image.name, rm=True, decode=True
        ):
            if "error" in line:
                raise NoMeshError(f"{image.name} cannot be made: {line['error']}")


def _is_there(engine: Any, name: str, made: str) -> bool:
    """Under its name, which somebody else's image may have taken."""
    try:
        labels = engine.inspect_image(name)["Config"]["Labels"] or {}
    except docker.errors.ImageNotFound:
        return False
    return bool(labels.get(_MADE_OF) == made)


# ---------------------------------------------------------------- what is in them


def _with_shell(files: Mapping[str, bytes | Path]) -> Files:
    """With busybox, and with the libraries of what is linked with any."""
    made: Files = {
        "etc/passwd": _USERS.encode(),
        "etc/group": b"root:x:0:\nistio-proxy:x:1337:\n",
        "run/xtables.lock": b"",
        "bin/busybox": program("busybox"),
        **files,
    }
    for place, content in files.items():
        if isinstance(content, Path) and (place.endswith(".so") or "/bin/" in f"/{place}"):
            made.update({str(each): each for each in libraries(content)})
    return made


def _python() -> Files:
    """The Python that runs this, and the lab's programs."""
    prefix = Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    interpreter = prefix / "bin" / version
    library = prefix / "lib" / version
    made: Files = {str(interpreter): interpreter}
    for folder, folders, names in library.walk() if hasattr(library, "walk") else _walk(library):
        folders[:] = [
            each for each in folders if each not in _UNUSED and not each.startswith("config-")
        ]
        for name in names:
            file = Path(folder, name)
            made[str(file)] = file
    first = f"#!{interpreter}\n".encode()
    for place, name in (
        ("bin/registrator", "registrator.py"),
        ("bin/kube-apiserver", "api_server.py"),
        ("usr/local/bin/application", "application.py"),
    ):
        made[place] = first + (HERE / "programs" / name).read_bytes()
    return _with_shell(made)


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Path.walk, which Python has since 3.12."""
    import os  # noqa: PLC0415 # here alone

    for path, folders, names in os.walk(folder):
        yield Path(path), folders, names


def _pilot() -> Files:
    """Python, gRPC, Envoy's messages, and the lab's control plane."""
    made = _python()
    for distribution in _PACKAGES:
        for file in importlib.metadata.files(distribution) or ():
            place = Path(str(file.locate()))
            if file.suffix in {".py", ".so"} and ".." not in file.parts:
                made[f"{_SITE}/{file}"] = place
    for source in sorted((HERE / "control_plane").glob("*.py")):
        made[f"{_SITE}/{source.relative_to(ROOT)}"] = source
    interpreter = next(each for each in made if "/bin/python" in each)
    made["usr/local/bin/pilot-discovery"] = (
        f"#!/bin/sh\nexport PYTHONPATH=/{_SITE} PYTHONDONTWRITEBYTECODE=1\n"
        f'exec {interpreter} -m tests.live.lab.control_plane.server "$@"\n'
    ).encode()
    return _with_shell(made)


def _redirect() -> Files:
    iptables = program("xtables-legacy-multi")
    modules = next(iter(Path("/usr/lib").glob("*/xtables")), Path("/usr/lib/xtables"))
    made: Files = {str(modules / name): modules / name for name in _XTABLES}
    made["usr/local/bin/xtables-legacy-multi"] = iptables
    made["bin/iptables"] = b'#!/bin/sh\nexec /usr/local/bin/xtables-legacy-multi iptables "$@"\n'
    made["usr/local/bin/istio-iptables.sh"] = HERE / "programs" / "istio-iptables.sh"
    return _with_shell(made)


def _proxy() -> Files:
    made: Files = {"usr/local/bin/envoy": envoy(), "usr/local/bin/curl": program("curl")}
    made["usr/local/bin/pilot-agent"] = HERE / "programs" / "pilot-agent"
    return _with_shell(made)


# ---------------------------------------------------------------- archives


def _digest(files: Mapping[str, bytes | Path]) -> str:
    """Of small files the contents, of the many large ones their size and time."""
    told = hashlib.sha256()
    for name, content in sorted(files.items()):
        told.update(name.encode())
        if isinstance(content, bytes):
            told.update(content)
        elif HERE in content.parents:
            told.update(content.read_bytes())
        else:
            state = content.stat()
            told.update(f"{state.st_size} {state.st_mtime_ns}".encode())
    return told.hexdigest()[:16]


def _tar(files: Mapping[str, bytes | Path]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in sorted(files.items()):
            body = content if isinstance(content, bytes) else content.read_bytes()
            member = tarfile.TarInfo(name.lstrip("/"))
            member.size, member.mode = len(body), 0o755
            archive.addfile(member, io.BytesIO(body))
        everyone = tarfile.TarInfo("tmp")
        everyone.type, everyone.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(everyone)
        listed = subprocess.run(
            [program("busybox"), "--list"], capture_output=True, text=True, check=True
        ).stdout
        for applet in sorted(set(listed.split()) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            if f"bin/{applet}" not in files:
                archive.addfile(link)
    return packed.getvalue()
