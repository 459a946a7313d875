"""A computer of which GGUF files are the best use, as the server's answers tell of it; for the tests of the page."""

from dataclasses import replace
from typing import Any

from magistral_ui.engines.base import ModelInfo, Ready
from magistral_ui.errors import Message
from magistral_ui.models.cards import MAGISTRAL_1_2
from magistral_ui.models.memory import MemoryPlan, Share
from tests.browser.model_answers import models_answer

GB = 10**9
FILES = "unsloth/Ministral-3-8B-Reasoning-2512-GGUF"
COMMAND = "pip install --force-reinstall xllamacpp --index-url https://xorbitsai.github.io/xllamacpp/whl/cu128"
SIZES = {"Q8_0": 9.6, "Q6_K": 7.4, "Q5_K_M": 6.5, "Q4_K_M": 5.5, "Q3_K_M": 4.5, "Q2_K": 3.6}
"""GB of a file of Ministral 3 8B, by quantization."""

TEXT_ONLY = replace(MAGISTRAL_1_2, vision=False)
"""The card of a GGUF file without its projector."""
PLAN = MemoryPlan(
    "Q4_K_M",
    weights=14 * GB,
    working=GB,
    margin=GB,
    kv_per_token=83_000,
    kv_bytes=3 * GB,
    context=40_960,
    visitors=4,
    shares=(Share(32, 14 * GB, GB, GB, 3 * GB),),
    kv_type="q8_0",
    gpu_layers=32,
    slots=4,
    ram_layers=9,
)
INFO = ModelInfo(
    MAGISTRAL_1_2.name,
    "Magistral-Small-2509-Q4_K_M.gguf",
    "Q4_K_M",
    "NVIDIA RTX 4070",
    40_960,
    parameters=23_572_403_200,
    engine="llama.cpp",
    plan=PLAN,
    notices=(
        Message("gpu_torch_without_cuda", {"card": "RTX 4070", "command": COMMAND}),
        Message("gguf_without_projector", {"model": "Magistral-Small-2509-Q4_K_M.gguf"}),
    ),
)
READY = Ready(INFO)


def choice(precision: str, engine: str, needs: float, pace: float | None) -> dict[str, Any]:
    sizes = {"weights": int(needs * GB) - GB, "needs": int(needs * GB)}
    return {"precision": precision, "engine": engine, "context": 32_768, "pace": pace, "measured": False, **sizes}


def way(repository: str, precision: str, engine: str, download: float) -> dict[str, Any]:
    sizes = {"download": int(download * GB), "memory": int(download * GB)}
    return {"repository": repository, "precision": precision, "engine": engine, "fits": True, **sizes}


def entry(key: str, name: str, **values: Any) -> dict[str, Any]:
    nothing = dict.fromkeys(("seconds_left", "seconds", "refusal", "failure", "original"))
    return {
        "key": key,
        "name": name,
        "repository": f"mistralai/{key}",
        "quantization": "",
        "license": "Apache-2.0",
        "parameters": 8_918_026_240,
        "languages": ["en", "fr"],
        "benchmarks": {"aime25": 78.7, "gpqa_diamond": 66.8},
        "state": "absent",
        "on_disk": 0,
        "download": 18 * GB,
        "done": 0,
        "total": 18 * GB,
        "fits": True,
        "best": False,
        "choices": [],
        "ways": [],
        **nothing,
        **values,
    }


def best() -> dict[str, Any]:
    """Ministral 3 8B: in all quantizations, best in Q4_K_M; its original weights would fit, too."""
    key, original = "ministral-3-8b", "mistralai/Ministral-3-8B-Reasoning-2512"
    ready = "unsloth/Ministral-3-8B-Reasoning-2512-unsloth-bnb-4bit"
    files = [choice(name, "llama.cpp", size + 1.2, 60 / size) for name, size in SIZES.items()]
    files.sort(key=lambda each: bool(each["precision"] != "Q4_K_M"))
    ways = [way(f"{FILES}:{name}", name, "llama.cpp", size) for name, size in SIZES.items()]
    ways += [way(original, "nf4", "transformers", 17.8), way(ready, "nf4", "transformers", 6.5)]
    choices = [*files, choice("nf4", "transformers", 7.9, 4.6)]
    return entry(key, "Ministral 3 8B", repository=original, best=True, seconds=600.0, choices=choices, ways=ways)


def held() -> list[dict[str, Any]]:
    """Ministral 3 3B, of which a GGUF file is on this computer."""
    files, original = "unsloth/Ministral-3-3B-Reasoning-2512-GGUF", "mistralai/Ministral-3-3B-Reasoning-2512"
    key = f"{files}:Q4_K_M"
    choices = [choice("Q4_K_M", "llama.cpp", 3.4, 26.0), choice("nf4", "transformers", 4.1, 9.5)]
    ways = [way(key, "Q4_K_M", "llama.cpp", 2.2), way(original, "nf4", "transformers", 7.7)]
    model = entry("ministral-3-3b", "Ministral 3 3B", repository=original, choices=choices, ways=ways)
    sizes = {"on_disk": int(2.2 * GB), "download": int(2.2 * GB)}
    copy = entry(key, key, repository=files, quantization="Q4_K_M", original=model["key"], state="complete", **sizes)
    return [model, copy]


def models() -> dict[str, Any]:
    refusal = {"key": "model_needs_memory", "values": {"needed": 12.6, "free": 11}}
    refused = entry("magistral-small-2509", "Magistral Small 1.2", fits=False, refusal=refusal)
    demo = entry("demo", "Demo", state="local", benchmarks={}, repository="", parameters=0)
    memory = {"free": 11 * GB, "total": 16 * GB}
    return models_answer([best(), *held(), refused, demo], device="AMD Ryzen 7 7840U", memory=memory)
