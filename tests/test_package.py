"""What the wheel and the Space contain: all that the app uses, and nothing else."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

from space.push import SUFFIXES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "magistral_ui"
MODULE = re.compile(r"magistral_ui(\.\w+)*")
NOT_SHIPPED = {
    "magistral_ui/models/demo/README.md",
    "magistral_ui/ui/assets/types.d.ts",
    "magistral_ui/ui/assets/vendor/renderers.d.ts",
}
"""Documentation and types, which the app never reads."""


def shipped_suffixes() -> set[str]:
    """The suffixes of the data files that pyproject.toml puts into the wheel (without tomllib, which Python 3.10 lacks)."""
    declared = re.search(
        r"^\[tool\.setuptools\.package-data\]\nmagistral_ui = \[([^\]]*)\]",
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert declared is not None
    return {pattern.removeprefix("**/*") for pattern in re.findall(r'"([^"]+)"', declared[1])}


def modules_of(file: Path) -> Iterator[str]:
    """The modules that a file imports or names, also by the file beside it; `from package import name` may mean one."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{each.name}" for each in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value.partition(":")[0]
            if re.fullmatch(r"\w+\.py", node.value):
                yield ".".join(file.with_name(node.value).relative_to(ROOT).with_suffix("").parts)


def path_of(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    return next((each for each in (base.with_suffix(".py"), base / "__init__.py") if each.is_file()), None)


def test_the_wheel_and_the_space_ship_every_data_file() -> None:
    data = [
        file
        for file in PACKAGE.rglob("*")
        if file.is_file() and file.suffix != ".py" and not {"__pycache__", "node_modules"} & set(file.parts)
    ]
    suffixes = {file.suffix for file in data if file.relative_to(ROOT).as_posix() not in NOT_SHIPPED}
    assert suffixes == shipped_suffixes()
    assert suffixes | {".py"} == set(SUFFIXES)


def test_every_module_is_used_by_the_app() -> None:
    """What only tests, benchmarks or the training of the demo model use belongs there."""
    reached, waiting = set(), [ROOT / "app.py"]
    while waiting:
        file = waiting.pop()
        for module in modules_of(file):
            found = path_of(module) if MODULE.fullmatch(module) else None
            if found is not None and found not in reached:
                reached.add(found)
                waiting.append(found)
    modules = {file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"}
    assert {file.relative_to(ROOT).as_posix() for file in modules - reached} == set()


def lines_of(name: str) -> list[str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.partition("  #")[0] for line in lines if line and not line.startswith("#")]


def test_gguf_files_need_neither_torch_nor_what_stands_on_it() -> None:
    names = {Requirement(line).name for line in lines_of("requirements-gguf.txt")}
    assert {"xllamacpp", "gradio", "mistral-common"} <= names
    assert not names & {"torch", "transformers", "accelerate", "bitsandbytes", "safetensors"}


def test_the_wheel_needs_all_that_requirements_txt_includes() -> None:
    parts = [line.removeprefix("-r ") for line in lines_of("requirements.txt")]
    declared = re.search(r"^dependencies = \{ file = \[(.+?)\] \}", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert re.findall(r'"(.+?)"', declared[1]) == parts
    first, second = ({Requirement(line).name for line in lines_of(name)} for name in parts)
    assert not first & second, "no library has two lines"
