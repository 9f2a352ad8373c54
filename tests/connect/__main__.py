"""Start a real mesh of Consul's own kind on loopback, say how to examine it, stay until Ctrl-C.

python -m tests.connect up                     a healthy one
python -m tests.connect up --fault NAME        one with that fault in it
python -m tests.connect faults                 the faults by name
python -m tests.connect record --fault NAME -o FILE.tgz
"""

import argparse
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.connect.faults import FAULTS
from tests.connect.mesh import ConnectMesh, NoMeshError, temporary_folder


def main(arguments: Sequence[str]) -> int:
    """What the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.connect", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("faults", help="the faults by name")
    for name, about in (("up", "start one and stay"), ("record", "start one and record it")):
        command = commands.add_parser(name, help=about)
        command.add_argument("--fault", choices=FAULTS, default="none", metavar="NAME")
        command.add_argument("--folder", type=Path, help="where it lives, else a temporary one")
        if name == "record":
            command.add_argument("-o", "--output", required=True, type=Path)
            command.add_argument(
                "--settle",
                type=float,
                default=8.0,
                help="seconds that Consul's checks get to see the fault",
            )
    asked = parser.parse_args(arguments)
    if asked.command == "faults":
        for name, fault in FAULTS.items():
            print(f"{name:22} {fault.about}")
        return 0
    # Ctrl-C and a plain kill both end it in order, so that nothing of it is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ExitStack() as stack:
            folder = asked.folder or stack.enter_context(temporary_folder())
            mesh = _started(stack, folder.absolute(), asked.fault)
            if asked.command == "record":
                threading.Event().wait(asked.settle)
                _record(mesh, asked.output.absolute())
            else:
                _say(mesh, asked.fault)
                threading.Event().wait()
    except NoMeshError as error:
        print(f"no mesh: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
    return 0


def _started(stack: ExitStack, folder: Path, name: str) -> ConnectMesh:
    fault = FAULTS[name]
    mesh = ConnectMesh(folder, acl=fault.acl, servers=fault.servers)
    print("starting Consul, four services and their Envoys ...", file=sys.stderr)
    # Also where its start fails, what was started ends.
    stack.callback(mesh.stop)
    mesh.start()
    fault.apply(mesh)
    return mesh


def _record(mesh: ConnectMesh, output: Path) -> None:
    """The snapshot, and beside it what each call really met."""
    command = ("meshdoctor", "snapshot", "--force", "-o", str(output))
    print(mesh.run(*command), end="")
    probe = output.with_suffix(".probe.txt")
    lines = (" ".join(map(str, each)) for each in mesh.calls_made())
    probe.write_text("".join(f"{line}\n" for line in lines))
    print(f"wrote {output} and {probe}")


def _say(mesh: ConnectMesh, fault: str) -> None:
    lines = [f"A mesh of Consul {mesh.consul_address} in {mesh.folder}: {FAULTS[fault].about}."]
    for service in mesh.services.values():
        calls = ", ".join(f"{up.name} at 127.0.0.1:{up.port}" for up in service.upstreams)
        lines.append(
            f"  {service.name:4} 127.0.0.1:{service.port}, admin of its Envoy "
            f"127.0.0.1:{service.admin}, calls {calls or 'nobody'}"
        )
    lines += ["", "In another terminal:", ""]
    wanted = ("CONSUL_HTTP_ADDR", "CONSUL_GRPC_ADDR", "CONSUL_HTTP_TOKEN")
    lines += [
        f"  export {name}={shlex.quote(mesh.environment[name])}"
        for name in wanted
        if name in mesh.environment
    ]
    lines += [f"  export PATH={mesh.consul.parent}:{mesh.envoy.parent}:$PATH"]
    lines += [f"  {Path(sys.executable).with_name('meshdoctor')} check", "", "Ctrl-C ends it."]
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
