"""Nothing that Leeway reads can run code: no pickle and its kin, no code in YAML, no model that is a program.

Whoever can write to the log, the registry or the network would otherwise own every process that reads from there.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.test_architecture import PRODUCT, ROOT

#: Modules whose files, or messages, are programs when they are read; whatever is below them as well.
PROGRAMS = {
    "_pickle", "cPickle", "cloudpickle", "code", "dbm", "dill", "imp", "joblib", "jsonpickle", "marshal",
    "multiprocessing", "pickle", "pickletools", "runpy", "shelve", "skops",
}  # fmt: skip
#: Calls by the last part of their name, whatever they are called on.
CALLS = {
    "enable_load_extension", "exec_module", "from_pickle", "full_load", "load_extension", "load_model", "popen",
    "ProcessPoolExecutor", "read_pickle", "SourceFileLoader", "spec_from_file_location", "unsafe_load",
    "unsafe_load_all", "full_load_all", "to_pickle",
}  # fmt: skip
BUILTINS = {"compile", "eval", "exec", "__import__"}
#: Parsers in C++: they run nothing that they read, and trust its offsets.
NATIVE = {"Booster", "CDLL", "deserialize_index", "read_index"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}

#: What is there all the same, and why it may be.
STATED = {
    ("streaming/cold.py", "import marshal"): "a swap file without a name, which this process alone has open",
    ("engine/compiled.py", "numba cache"): "machine code of our own, in a directory that is the service's alone",
    ("monitoring/compiled.py", "numba cache"): "the same",
    ("monitoring/river_detector.py", "import_module"): "a constant name, imported where it is asked for by name",
    ("streaming/kafka/seam.py", "import_module"): "one of two constant names of ours",
    ("engine/oracles/lightgbm.py", "Booster"): "text with a checksum, out of a policy's file",
    ("engine/oracles/trees.py", "Booster"): "text that a learner of this process has made",
    ("engine/recommender/index.py", "deserialize_index"): "bytes under the digest of a policy's file",
    ("streaming/role_process.py", "CDLL"): "the C library that Python itself is linked with",
}


def last_name(node: ast.expr) -> str:
    """Return ``load`` of ``np.load`` and of ``load``."""
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def owner(node: ast.expr) -> str:
    """Return ``np`` of ``np.load``; empty where it is called on nothing with a name."""
    return last_name(node.value) if isinstance(node, ast.Attribute) else ""


def is_constant(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def dangers(source: str) -> Iterator[str]:
    """Yield what in a file could run what it reads."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (f"import {alias.name}" for alias in names if alias.name.split(".")[0] in PROGRAMS)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                if module.split(".")[0] in PROGRAMS:
                    yield f"import {module}"
                yield from (alias.name for alias in names if alias.name in CALLS | NATIVE)
            case ast.Call():
                yield from _calls(node)


def _calls(node: ast.Call) -> Iterator[str]:
    name, given = last_name(node.func), {word.arg: word.value for word in node.keywords}
    if isinstance(node.func, ast.Name) and name in BUILTINS:
        yield name
    if name in CALLS | NATIVE | {"import_module"}:
        yield name
    if name == "system" and owner(node.func) == "os":
        yield "os.system"
    of_numpy = name == "load" and owner(node.func) in ("np", "numpy", "jnp")
    if of_numpy and not is_constant(given.get("allow_pickle"), False):
        yield f"{owner(node.func)}.{name}"
    if given.get("allow_pickle") is not None and not is_constant(given["allow_pickle"], False):
        yield "allow_pickle"
    if owner(node.func) == "torch" and name == "load":
        yield "torch.load"
    if owner(node.func) == "yaml" and name in ("load", "load_all", "compose", "compose_all", "parse", "scan"):
        loader = given.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
        if loader is None or last_name(loader) not in SAFE_LOADERS:
            yield f"yaml.{name}"
    if "shell" in given and not is_constant(given["shell"], False):
        yield "shell"
    if "cache" in given and name in ("jit", "njit", "vectorize", "guvectorize"):
        yield "numba cache"


def test_nothing_that_is_read_can_run_code() -> None:
    found = {(str(path.relative_to(ROOT)), danger) for path in PRODUCT for danger in dangers(path.read_text())}
    assert found - STATED.keys() == set(), "read it as plain arrays, JSON or protobuf; or say above why it is safe"
    assert STATED.keys() - found == set(), "stated, and not there any more"


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "import pickle"),
        ("def f():\n    from joblib import load", "import joblib"),
        ("import cloudpickle.cloudpickle as x", "import cloudpickle.cloudpickle"),
        ("from concurrent.futures import ProcessPoolExecutor", "ProcessPoolExecutor"),
        ("np.load(path)", "np.load"),
        ("np.load(path, allow_pickle=True)", "np.load"),
        ("numpy.load(path, allow_pickle=wanted)", "allow_pickle"),
        ("np.savez(f, allow_pickle=1)", "allow_pickle"),
        ("pd.read_pickle(path)", "read_pickle"),
        ("mlflow.pyfunc.load_model(uri)", "load_model"),
        ("from mlflow.sklearn import load_model", "load_model"),
        ("yaml.load(text)", "yaml.load"),
        ("yaml.load(text, Loader=yaml.Loader)", "yaml.load"),
        ("yaml.unsafe_load(text)", "unsafe_load"),
        ("eval(text)", "eval"),
        ("exec(text)", "exec"),
        ("torch.load(path)", "torch.load"),
        ("subprocess.run(text, shell=True)", "shell"),
        ("os.system(text)", "os.system"),
        ("importlib.import_module(name)", "import_module"),
        ("lightgbm.Booster(model_file=path)", "Booster"),
        ("faiss.read_index(path)", "read_index"),
        ("connection.load_extension(path)", "load_extension"),
        ("numba.njit(cache=True)", "numba cache"),
    ],
)
def test_a_danger_would_be_found(source: str, danger: str) -> None:
    assert danger in set(dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "np.load(file, allow_pickle=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.compose(text, Loader=yaml.CSafeLoader)",
        "json.loads(text)",
        "re.compile(pattern)",
        "store.load(name)",
        "from streaming.log import system",
    ],
)
def test_what_runs_nothing_is_let_through(source: str) -> None:
    assert list(dangers(source)) == []
