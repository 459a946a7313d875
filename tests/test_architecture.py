"""The house rules that a machine can check: floors, what may be imported where, and that importing does nothing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "magistral_ui"
FILES = sorted(file for file in PACKAGE.rglob("*.py") if "node_modules" not in file.parts)
OURS = [ROOT / "app.py", *FILES]
ENGINES = PACKAGE / "engines"
RUNS_MODELS = (ENGINES / "local", ENGINES / "weights")
ON_ZERO = (ENGINES / "zerogpu" / "worker.py",)
"""What runs behind the fork on a ZeroGPU Space."""
SERVES = (PACKAGE / "web", PACKAGE / "ui")

FLOORS = {"i18n": 0, "chat": 1, "export": 1, "models": 1, "engines": 2, "sessions": 3, "web": 4, "ui": 5}
ROOF = 6
GROUND = {
    "magistral_ui",
    "magistral_ui.bounded_process",
    "magistral_ui.client",
    "magistral_ui.environment",
    "magistral_ui.errors",
    "magistral_ui.fairness",
    "magistral_ui.json_log",
}  # may be imported from everywhere
HEAVY = {"torch", "transformers", "accelerate", "bitsandbytes", "safetensors", "huggingface_hub"}
FORBIDDEN_NAMES = ("utils", "helpers", "common", "manager", "misc")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def floor(module_name: str) -> int:
    parts = module_name.split(".")
    return FLOORS.get(parts[1], ROOF) if len(parts) > 1 else ROOF


def imports(file: Path) -> Iterator[str]:
    """Everything that `file` imports anywhere in it, type checking aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    only_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in only_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the floor"
            yield node.module or ""


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_go_down_only(file: Path) -> None:
    ours = [name for name in imports(file) if name.split(".")[0] == "magistral_ui" and name not in GROUND]
    if file.parent == PACKAGE and file.name == "errors.py":
        assert not ours
        return
    below = floor(module(file))
    for name in ours:
        assert floor(name) <= below, f"{module(file)} imports {name}, which is above it"
        assert name != "magistral_ui.settings", "settings are read by app.py only"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_heavy_imports_stay_on_their_floor(file: Path) -> None:
    used = {name.split(".")[0] for name in imports(file)}
    runs_models = file in ON_ZERO or any(folder in file.parents for folder in RUNS_MODELS)
    assert runs_models or not used & HEAVY
    assert runs_models or "mistral_common" not in used
    serves = any(folder in file.parents for folder in SERVES)
    assert serves or not used & {"gradio", "gradio_client", "starlette", "fastapi", "mcp"}
    assert name_of(file) == "magistral_ui/ui/api/mcp_server.py" or not used & {"mcp", "mcp_types"}, (
        "an extra, opened late"
    )


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_a_file_begins_with_a_sentence(file: Path) -> None:
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    assert docstring
    first = docstring.split("\n\n")[0]
    assert len(first.split()) >= 5
    assert first.rstrip().endswith((".", ":"))


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_names_say_what_is_in_a_file(file: Path) -> None:
    assert not any(word in file.stem.split("_") for word in FORBIDDEN_NAMES)


BORDERS = {
    "engines/local/engine.py",
    "engines/local/executor.py",
    "engines/local/scheduler.py",
    "engines/local/running_model.py",
    "engines/remote/engine.py",
    "engines/zerogpu/engine.py",
    "engines/remote/streamed_reply.py",
    "sessions/history/writer.py",
    "ui/chat.py",
    "ui/page.py",
    "ui/api/chat_endpoint.py",
}


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_only_the_borders_catch_everything(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    broad = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")))
    ]
    assert not broad or name_of(file).removeprefix("magistral_ui/") in BORDERS
    for handler in broad:
        handed_on = handler.name and any(isinstance(n, ast.Name) and n.id == handler.name for n in ast.walk(handler))
        assert handed_on or "log.exception" in ast.unparse(handler), f"line {handler.lineno} forgets the error"
    assert not broad or "exc_info" in source or "log.exception" in source, "the trace is kept for the log"


@pytest.mark.parametrize("file", OURS, ids=name_of)
def test_importing_a_file_only_defines(file: Path) -> None:
    """On the top level: definitions, constants and imports; calls only to make a constant."""
    allowed = (
        ast.Import,
        ast.ImportFrom,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Assign,
        ast.AnnAssign,
    )
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guarded = isinstance(node, ast.If) and (
            "__name__" in ast.unparse(node.test) or "TYPE_CHECKING" in ast.unparse(node.test)
        )
        assert docstring or guarded or isinstance(node, allowed), f"line {node.lineno} does something on import"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_function_changes_a_global(file: Path) -> None:
    globals_used = [n for n in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(n, ast.Global)]
    assert not globals_used


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
    pure.append("magistral_ui.engines.local.engine")  # it imports torch in its thread, behind the served page
    ended = subprocess.run(
        [sys.executable, "-c", BLOCKER, *pure], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_no_second_language_for_people_in_the_page_s_python() -> None:
    """Sentences are in i18n/locales: no string in ui or web Python reads like one (docstrings and log lines aside)."""
    found = []
    for file in sorted(file for folder in SERVES for file in folder.rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
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
