"""Finds the facts by probes, each in a process of its own and within its time; it judges nothing."""

import os
import re
from collections.abc import Callable, MutableMapping
from dataclasses import replace
from typing import Any

from magistral_ui.doctor.answers import message_of, read
from magistral_ui.doctor.facts import (
    EngineFacts,
    Facts,
    HubFacts,
    LlamaFacts,
    LlamaReplyFacts,
    PackageFacts,
    SafeguardFacts,
    StorageFacts,
    SystemFacts,
    TorchFacts,
    Wanted,
)
from magistral_ui.doctor.probing import Probed, probe
from magistral_ui.environment import prepare_environment
from magistral_ui.errors import BadSetting, Message

SYSTEM_SECONDS, STORAGE_SECONDS, HUB_SECONDS = 30.0, 60.0, 40.0
PACKAGES_SECONDS, DEVICE_SECONDS = 180.0, 120.0
QUICK_SECONDS, FULL_SECONDS = 300.0, 7_200.0
MAX_BREAKS = 8
"""Libraries that may end the process that imports them before the rest is left alone."""
OFFLINE = {"HF_HUB_OFFLINE": "1"}
"""For probes that look for a model: nothing is downloaded unasked."""

TELLING = re.compile(
    r"(MAGISTRAL_UI|HF|HUGGINGFACE|GRADIO|CUDA|NVIDIA|HIP|ROCR|HSA|GGML|LLAMA|PYTORCH|TORCH|TORCHINDUCTOR|BNB|OMP|MKL)_[A-Z0-9_]+"
    r"|(SSL_CERT|REQUESTS_CA|CURL_CA)_\w+|(?i:https?|all|no)_(?i:proxy)|PYTHON(?:PATH|HOME|SAFEPATH|WARNINGS|MALLOC)|LD_LIBRARY_PATH|LD_PRELOAD|DYLD_\w+|TMPDIR|XDG_CACHE_HOME|SPACE_ID"
)
"""Variables that change what the app or its libraries do."""

Ask = Callable[..., Probed]


def survey(wanted: Wanted, environment: MutableMapping[str, str] = os.environ, ask: Ask = probe) -> Facts:
    names = _named(environment)  # before some are dropped, and others set
    facts = Facts(wanted, _environment(environment), names)
    found = ask("magistral_ui.doctor.system_probe:system_facts", SYSTEM_SECONDS)
    facts = replace(_with(facts, "system", SystemFacts, found), system=read(SystemFacts, found.found))
    found = ask("magistral_ui.engines.weights.storage_probe:storage_facts", STORAGE_SECONDS, data_dir=wanted.data_dir)
    facts = _with(facts, "storage", StorageFacts, found)
    facts = _with(facts, "hub", HubFacts, ask("magistral_ui.engines.weights.hub_probe:hub_facts", HUB_SECONDS))
    facts = _packages(replace(facts, port=_port(wanted, ask)), ask)
    is_gguf = _names_gguf(wanted, ask)
    facts = _with_torch(facts, ask, Wanted() if is_gguf else wanted)
    return _with_llama(facts, ask, wanted if is_gguf else Wanted())


def _with_torch(facts: Facts, ask: Ask, chosen: Wanted) -> Facts:
    """torch's device and the `chosen` model on it, if torch is installed."""
    wanted = facts.wanted
    if not {"torch", "transformers"} <= _installed(facts):
        return facts
    found = ask("magistral_ui.engines.local.torch_probe:torch_facts", DEVICE_SECONDS, device=wanted.device)
    facts = _with(facts, "torch", TorchFacts, found)
    if found.failure is not None:
        failures = {**facts.failures, **dict.fromkeys(("engine", "safeguards"), found.failure)}
        return replace(facts, failures=failures, hardware=read(TorchFacts, found.found))
    found = ask("magistral_ui.engines.local.safeguard_probe:safeguard_facts", QUICK_SECONDS, OFFLINE)
    facts = _with(facts, "safeguards", SafeguardFacts, found)
    seconds = FULL_SECONDS if wanted.full else QUICK_SECONDS
    found = ask(
        "magistral_ui.engines.local.engine_probe:engine_facts",
        seconds,
        OFFLINE,
        model=chosen.model,
        device=wanted.device,
        precision=chosen.precision,
        full=wanted.full,
    )
    return _with(facts, "engine", EngineFacts, found)


def _with_llama(facts: Facts, ask: Ask, chosen: Wanted) -> Facts:
    """llama.cpp's device and the `chosen` GGUF file on it, if that is installed."""
    wanted = facts.wanted
    if "xllamacpp" not in _installed(facts):
        return facts
    found = ask("magistral_ui.engines.gguf.llama_probe:llama_facts", DEVICE_SECONDS, device=wanted.device)
    facts = _with(facts, "llama", LlamaFacts, found)
    if facts.llama is None:
        return facts
    seconds = FULL_SECONDS if wanted.full else QUICK_SECONDS
    found = ask(
        "magistral_ui.engines.gguf.llama_probe:reply_facts",
        seconds,
        OFFLINE,
        model=chosen.model,
        device=wanted.device,
        precision=chosen.precision,
    )
    return _with(facts, "llama_reply", LlamaReplyFacts, found)


def _installed(facts: Facts) -> set[str]:
    return {each.name for each in facts.packages or () if each.version}


def _names_gguf(wanted: Wanted, ask: Ask) -> bool:
    """Whether the model that is named, if one is, is one for llama.cpp."""
    if wanted.model is None and wanted.precision == "auto":
        return False
    probed = ask(
        "magistral_ui.doctor.system_probe:choice_facts", SYSTEM_SECONDS, model=wanted.model, precision=wanted.precision
    )
    return bool(probed.found.get("gguf"))


def _with(facts: Facts, part: str, kind: type[Any], probed: Probed) -> Facts:
    """`facts` with what a probe found, or with why it could not find it."""
    if probed.failure is None:
        return replace(facts, **{part: read(kind, probed.found)})
    return replace(facts, failures={**facts.failures, part: probed.failure})


def _environment(environment: MutableMapping[str, str]) -> tuple[Message, ...]:
    """Make the environment what the app would make it, and say what it lacks."""
    try:
        return tuple(prepare_environment(environment))
    except BadSetting as error:
        return (error.message,)


def _named(environment: MutableMapping[str, str]) -> tuple[str, ...]:
    """Names of variables, never their values."""
    return tuple(sorted(name for name, value in environment.items() if value and TELLING.fullmatch(name)))


def _port(wanted: Wanted, ask: Ask) -> Message | None:
    probed = ask("magistral_ui.doctor.system_probe:port_facts", SYSTEM_SECONDS, host=wanted.host, port=wanted.port)
    return probed.failure or message_of(probed.found.get("problem"))


def _packages(facts: Facts, ask: Ask) -> Facts:
    """The libraries of the requirements; one that ends the process that imports it is named, and the others are imported."""
    found: dict[str, dict[str, Any]] = {}
    probed = Probed()
    for _ in range(MAX_BREAKS):
        tried = [name for name, each in found.items() if "error" in each]
        probed = ask("magistral_ui.doctor.package_probe:package_facts", PACKAGES_SECONDS, skipped=tried)
        for name, each in probed.found.get("packages", {}).items():
            found[name] = {**each, **found.get(name, {}), **probed.found.get(name, {})}
        if probed.failure is None or probed.stage not in found:
            break
        found[probed.stage]["error"] = str(probed.failure.values.get("how", "timeout"))
    if not found and probed.failure is not None:
        return replace(facts, failures={**facts.failures, "packages": probed.failure})
    return replace(facts, packages=tuple(read(PackageFacts, each) for each in found.values()))
