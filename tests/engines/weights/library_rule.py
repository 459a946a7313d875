"""bitsandbytes' own rule for fused 4-bit products, read from its source: without a card, its module cannot be imported."""

import ast
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any

import torch

Rule = Callable[[int, torch.dtype, int, int, int], bool]


def rule_on(capability: tuple[int, int], processors: int) -> Rule:
    """The rule on a card of that compute capability and number of multiprocessors."""
    names: dict[str, Any] = {"torch": torch, "_gpu_dispatch_props": lambda _: (processors, *capability)}
    exec(_source(), names)
    rule: Rule = names["_gemm_4bit_use_custom_cuda"]
    return rule


@cache
def _source() -> CodeType:
    found = importlib.util.find_spec("bitsandbytes")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "backends" / "cuda" / "ops.py").read_text(encoding="utf-8")
    wanted = ("_gemm_4bit_use_custom_cuda", "_GEMM_4BIT_CUSTOM_FLOOR_M")
    body = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name in wanted:
            node.decorator_list = []
            body.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in wanted:
            body.append(node)
    return compile(ast.Module(body, []), "ops.py", "exec")
