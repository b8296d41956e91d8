"""Generate the Python code of the messages: ``python -m engine.api.generate [DIRECTORY]``.

The generated files are committed, so that users need no compiler; a test runs this module into a
temporary directory and compares.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).parent
PROTOS = ("records", "service", "parts", "admin")


def generate(target: Path) -> list[Path]:
    """Write the generated modules and stubs below ``target`` and return their paths."""
    from grpc_tools import protoc

    well_known = str(files("grpc_tools").joinpath("_proto"))
    googleapis = str(Path(str(files("google.rpc").joinpath("status.proto"))).parents[2])
    # The plugins are installed beside the interpreter, which need not be on the path.
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    plugins = {name: shutil.which(name, path=places) for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")}
    if None in plugins.values():
        raise RuntimeError(f"no {' or '.join(plugins)} to be found; install the extra of developers, leeway[dev]")
    sources = [f"leeway/v1/{name}.proto" for name in PROTOS]
    arguments = [
        "protoc",
        *(f"--plugin={name}={where}" for name, where in plugins.items()),
        f"-I{ROOT}",
        f"-I{well_known}",
        f"-I{googleapis}",
        f"--python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--grpc_python_out={target}",
        f"--mypy_grpc_out=quiet:{target}",
        *sources,
    ]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc failed; its messages are above")
    written = sorted((target / "leeway" / "v1").glob("*_pb2*.py*"))
    for path in written:
        if path.name.startswith(("records_pb2_grpc", "parts_pb2_grpc")):
            path.unlink()  # no service in it
            continue
        # protoc names modules by the proto path; ours live below engine.api.
        text = re.sub(r"^from leeway\.v1 import", "from engine.api.leeway.v1 import", path.read_text(), flags=re.M)
        text = re.sub(r"^import leeway\.v1\.", "import engine.api.leeway.v1.", text, flags=re.M)
        text = re.sub(r"(?<![\w.\"'/])leeway\.v1\.(\w+_pb2)", r"engine.api.leeway.v1.\1", text)
        path.write_text(text)
    return [path for path in written if path.exists()]


if __name__ == "__main__":
    for generated in generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT):
        print(generated)
