"""The house rules that a machine can check: floors, what may be imported where, and that importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "magistral_ui"
FILES = sorted(PACKAGE.rglob("*.py"))
OURS = [ROOT / "app.py", *FILES]
ENGINES = PACKAGE / "engines"
RUNS_MODELS = (ENGINES / "local", ENGINES / "weights", ENGINES / "gguf")
ON_ZERO = (ENGINES / "zerogpu" / "worker.py",)
"""What runs in the forked process on a ZeroGPU Space."""
SERVES = (PACKAGE / "web", PACKAGE / "ui")

PACKAGES = (
    ("i18n",),
    ("chat",),
    ("export",),
    ("models",),
    ("engines",),
    ("engines.weights",),
    ("engines.local",),
    ("engines.gguf",),
    ("engines.zerogpu", "engines.remote", "engines.switching"),
    ("sessions.history",),
    ("sessions",),
    ("web",),
    ("ui.api",),
    ("ui",),
    ("doctor",),
)
"""From the bottom to the top: a package imports from itself and from those below it, never from beside it."""
RANKS = {name: rank for rank, names in enumerate(PACKAGES, start=1) for name in names}
ROOF = len(PACKAGES) + 1
"""What stands in the package itself and is not GROUND: it puts the others together."""
GROUND = {
    "magistral_ui",
    "magistral_ui.bounded_process",
    "magistral_ui.client",
    "magistral_ui.environment",
    "magistral_ui.errors",
    "magistral_ui.fairness",
    "magistral_ui.json_log",
}
"""Modules that every package may import, and that import only each other."""
HEAVY = {"torch", "transformers", "accelerate", "bitsandbytes", "safetensors", "huggingface_hub"}
SERVING = {"gradio", "gradio_client", "starlette", "fastapi", "mcp"}
OUTSIDE = {"space", "tests", "training"}
"""What is not installed with the package."""
FORBIDDEN_NAMES = ("utils", "helpers", "common", "manager", "misc")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def package_of(module_name: str) -> str:
    """The package of PACKAGES in which a module is; "" on the ground and under the roof."""
    parts = module_name.split(".")[1:]
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in RANKS), "")


def rank(module_name: str) -> int:
    return 0 if module_name in GROUND else RANKS.get(package_of(module_name), ROOF)


def goes_up(module_name: str, imported: str) -> bool:
    """Whether `imported` is above the module that imports it, or in a package beside it."""
    if package_of(module_name) == package_of(imported):
        return rank(imported) > rank(module_name)
    return rank(imported) >= rank(module_name)


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file: Path) -> frozenset[str]:
    """Everything that `file` imports anywhere in it, type checking aside."""
    only_types = {
        id(inner)
        for node in ast.walk(parsed(file))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found: set[str] = set()
    for node in ast.walk(parsed(file)):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the floor"
            found.add(node.module or "")
            found.update(
                f"{node.module}.{alias.name}" for alias in node.names if _is_module(f"{node.module}.{alias.name}")
            )
    return frozenset(found)


def _is_module(name: str) -> bool:
    """Whether `from package import name` brings a module of ours."""
    path = ROOT.joinpath(*name.split("."))
    return name.startswith("magistral_ui.") and (path.with_suffix(".py").is_file() or path.is_dir())


def upward_imports() -> Iterator[tuple[str, str]]:
    for file in FILES:
        for name in imports(file):
            if name.startswith("magistral_ui.") and goes_up(module(file), name):
                yield module(file), name


def test_packages_import_only_from_below() -> None:
    assert not set(upward_imports())
    outside = [name_of(file) for file in OURS for name in imports(file) if name.split(".")[0] in OUTSIDE]
    assert not outside, "only the package is installed"
    readers = [name_of(file) for file in FILES if "magistral_ui.settings" in imports(file)]
    assert not readers, "settings are read by app.py only"


def test_heavy_imports_stay_on_their_floor() -> None:
    wrong = []
    for file in FILES:
        used = {name.split(".")[0] for name in imports(file)}
        if file not in ON_ZERO and not any(folder in file.parents for folder in RUNS_MODELS):
            wrong += [(name_of(file), name) for name in used & (HEAVY | {"mistral_common"})]
        if not any(folder in file.parents for folder in SERVES):
            wrong += [(name_of(file), name) for name in used & SERVING]
        if name_of(file) != "magistral_ui/ui/api/mcp_server.py":  # an extra, imported late
            wrong += [(name_of(file), name) for name in used & {"mcp", "mcp_types"}]
    assert not wrong


def test_a_file_begins_with_a_sentence() -> None:
    wrong = []
    for file in OURS:
        first = (ast.get_docstring(parsed(file)) or "").split("\n\n")[0]
        if len(first.split()) < 5 or not first.rstrip().endswith((".", ":")):
            wrong.append(name_of(file))
    assert not wrong


def test_names_say_what_is_in_a_file() -> None:
    assert not [name_of(file) for file in OURS if set(file.stem.split("_")) & set(FORBIDDEN_NAMES)]


BORDERS = {
    "doctor/checks.py",
    "doctor/child.py",
    "doctor/package_probe.py",
    "engines/gguf/engine.py",
    "engines/gguf/scheduler.py",
    "engines/local/engine.py",
    "engines/local/executor.py",
    "engines/local/scheduler.py",
    "engines/local/running_model.py",
    "engines/remote/server_monitor.py",
    "engines/zerogpu/engine.py",
    "engines/remote/streamed_reply.py",
    "sessions/history/writer.py",
    "ui/actions.py",
    "ui/api/chat_endpoint.py",
}


def test_only_the_borders_catch_everything() -> None:
    for file in OURS:
        source = file.read_text(encoding="utf-8")
        broad = [node for node in ast.walk(parsed(file)) if isinstance(node, ast.ExceptHandler) and _is_broad(node)]
        assert not broad or name_of(file).removeprefix("magistral_ui/") in BORDERS, name_of(file)
        for handler in broad:
            raised = handler.name and any(isinstance(n, ast.Name) and n.id == handler.name for n in ast.walk(handler))
            where = f"{name_of(file)}:{handler.lineno}"
            assert raised or "log.exception" in ast.unparse(handler), f"{where} forgets the error"
        assert not broad or "exc_info" in source or "log.exception" in source, f"{name_of(file)} logs no trace"


def _is_broad(handler: ast.ExceptHandler) -> bool:
    kind = handler.type
    return kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException"))


DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
)


def test_importing_a_file_only_defines() -> None:
    """On the top level: definitions, constants and imports; calls only to make a constant."""
    wrong = []
    for file in OURS:
        for node in parsed(file).body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guarded = isinstance(node, ast.If) and (
                "__name__" in ast.unparse(node.test) or "TYPE_CHECKING" in ast.unparse(node.test)
            )
            if not (docstring or guarded or isinstance(node, DEFINITIONS)):
                wrong.append(f"{name_of(file)}:{node.lineno}")
    assert not wrong, "these lines do something on import"


def test_no_function_changes_a_global() -> None:
    assert not [name_of(file) for file in FILES if any(isinstance(node, ast.Global) for node in ast.walk(parsed(file)))]


BLOCKER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "gradio", "mistral_common", "cv2", "starlette"}:
            raise AssertionError(name + " is imported")
sys.meta_path.insert(0, Blocked())
import importlib, socket, subprocess, threading
before = threading.active_count()
for name in sys.argv[1:]:
    importlib.import_module(name)
assert threading.active_count() == before, "a thread was started on import"
"""


def test_the_pure_floors_need_neither_torch_nor_gradio() -> None:
    pure = [
        module(file)
        for file in FILES
        if file not in ON_ZERO
        and not any(folder in file.parents for folder in RUNS_MODELS)
        and not any(folder in file.parents for folder in SERVES)
    ]
    assert len(pure) > 15
    pure.append("magistral_ui.engines.local.engine")  # it imports torch in its thread, after the page is served
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKER, *pure], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_no_second_language_for_people_in_the_page_s_python() -> None:
    """Sentences are in i18n/locales: no string in ui or web Python reads like one (docstrings and log lines aside)."""
    found = []
    for file in sorted(file for folder in SERVES for file in folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))  # a copy of its own: it is changed
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and "log." in ast.unparse(node.func):
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Constant):
                        inner.value = None
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = None
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = node.value.split()
                sentence = (
                    len(words) >= 3 and node.value[:1].isupper() and node.value.rstrip().endswith((".", "!", "?", "…"))
                )
                if sentence:
                    found.append(f"{file.name}:{node.lineno} {node.value!r}")
    assert not found
