"""Checks of what is installed and of the machine: Python, libraries, processor, graphics cards, kernels."""

from magistral_ui.doctor.checks import Check, Finding, PartMissing, fault, gibibytes, known_part, note, ok
from magistral_ui.doctor.facts import CardFacts, Facts, PackageFacts, SystemFacts, TorchFacts
from magistral_ui.doctor.old_python import MIN_PYTHON
from magistral_ui.errors import Message

TORCH_FAMILY = ("torch", "transformers", "accelerate", "bitsandbytes")
MANY = 4
"""So many missing libraries mean that they are installed for another Python, or not at all."""
SHOWN = (*TORCH_FAMILY, "mistral-common", "gradio", "xllamacpp", "huggingface_hub", "kernels")
"""The libraries whose versions explain most failures."""


def python(facts: Facts) -> Finding:
    system = _system(facts)
    found = tuple(int(part) for part in system.python.split()[-1].split(".")[:2])
    if found < MIN_PYTHON:
        return fault("doctor_python_old", system.python, found=system.python, needed=".".join(map(str, MIN_PYTHON)))
    value = " · ".join(filter(None, (system.python, system.environment, system.system)))
    return ok(value) if system.bits == 64 else fault("doctor_python_32", value)


def processor(facts: Facts) -> Finding:
    if "system" in facts.failures:  # what came before the failure is known
        raise PartMissing("system")
    system = _system(facts)
    parts = [system.processor or system.architecture, f"{system.cores} × {system.architecture}"]
    parts += [f"{gibibytes(system.free)} / {gibibytes(system.memory)} GiB", *system.instructions]
    value = " · ".join(parts)
    if system.limit is not None:  # the app plans with what the system says is free
        return note("doctor_memory_limit", value, limit=gibibytes(system.limit), memory=gibibytes(system.memory))
    return ok(value)


def environment(facts: Facts) -> Finding:
    wanted = facts.wanted
    flags = {"device": wanted.device, "precision": wanted.precision, "model": "…" if wanted.model else "auto"}
    chosen = [f"--{name} {value}" for name, value in flags.items() if value != "auto"]
    value = " · ".join([*chosen, *facts.variables]) or "–"
    return Finding("fault", value, facts.environment) if facts.environment else ok(value)


def packages(facts: Facts) -> Finding:
    found = {each.name: each for each in facts.packages or ()}
    gguf_only = not any(found[name].version for name in TORCH_FAMILY if name in found)
    absent = [each.name for each in found.values() if _is_missing(each, gguf_only)]
    told = [message for each in found.values() if (message := _of_package(each, gguf_only)) is not None]
    system = facts.system or SystemFacts()
    if len(absent) >= MANY:
        told = [message for message in told if message.key not in ("doctor_package_missing", "doctor_package_version")]
        is_gguf = not system.has_torch or (gguf_only and "xllamacpp" in found and bool(found["xllamacpp"].version))
        values = {"names": ", ".join(absent), "command": f"pip install -r requirements{'-gguf' * is_gguf}.txt"}
        told.insert(0, Message("doctor_packages_missing", values))
    if told and not system.pip:
        told.insert(0, Message("doctor_no_pip", {"command": "python -m ensurepip --upgrade"}))
    shown = [f"{name} {found[name].version}" for name in SHOWN if name in found and found[name].version]
    is_fault = any(message.key != "doctor_package_lacks" for message in told)
    return Finding("fault" if is_fault else "note" if told else "ok", " · ".join(shown), tuple(told))


def _of_package(package: PackageFacts, gguf_only: bool) -> Message | None:
    values = {"name": package.name, "command": package.command}
    if _is_missing(package, gguf_only):
        return Message("doctor_package_missing", values)
    if package.also:
        remove = f"pip uninstall -y {package.name}; " * len(package.also.split(", "))
        values |= {"found": package.also, "command": f"{remove}{package.command}"}
        return Message("doctor_package_twice", values)
    if package.version and not package.fits:
        return Message("doctor_package_version", values | {"found": package.version, "wanted": package.wanted})
    lacks = {"name": package.name, "wanted": package.lacks, "found": package.instead or "–"}
    if package.error:
        command = f'pip install "{package.lacks}"' if package.lacks else package.command_again
        return Message("doctor_package_broken", values | {"reason": package.error, "command": command})
    if package.lacks:
        return Message("doctor_package_lacks", lacks | {"command": f'pip install "{package.lacks}"'})
    return None


def _is_missing(package: PackageFacts, gguf_only: bool) -> bool:
    is_needed = bool(package.wanted) and not (gguf_only and package.name in TORCH_FAMILY)
    return is_needed and not package.version


def torch(facts: Facts) -> Finding:
    """torch itself; that a card cannot be used is the finding of `torch-build`."""
    if facts.torch is None:
        nowhere = facts.system is not None and not facts.system.has_torch
        return _without(facts, "torch", Message("doctor_torch_nowhere" if nowhere else "doctor_no_torch"))
    found = facts.torch
    build = found.cuda or "CPU"
    return ok(f"{found.version} ({build}) · {found.type} · {found.threads} threads")


def gpu(facts: Facts) -> Finding:
    """The cards as both libraries see them."""
    found, llama = facts.torch or facts.hardware, facts.llama
    seen = [_card(each) for each in found.cards] if found else []
    present = list(found.present) if found else []
    driver = [f"driver {found.driver}"] if found and found.driver else []
    shown = seen or [_card(each) for each in (llama.cards if llama else ())] or present
    return ok(" · ".join([*shown, *driver]) or "–")


def llama_cpp(facts: Facts) -> Finding:
    if facts.llama is None:
        broken = "llama" in facts.failures or not (facts.torch or facts.failures.get("torch"))
        return _without(facts, "llama", Message("doctor_no_llama"), "fault" if broken else "note")
    found = facts.llama
    value = f"{found.version} · {found.backend} · {', '.join(map(_card, found.cards)) or 'CPU'}"
    if found.hindrance is None:
        return ok(value)
    on_torch = facts.torch is not None and facts.torch.type != "cpu"
    return Finding("note" if on_torch else "fault", value, (found.hindrance,))


def kernels(facts: Facts) -> Finding:
    """Which ones the engine uses here."""
    found = known_part(facts, TorchFacts, "torch")
    parts = [f"attention: {'fused' if found.fused else 'in blocks'}"]
    if found.type == "cpu":
        parts.append(f"nf4: {'AVX512-BF16' if found.fast_nf4 else 'generic'}")
    parts.append(f"compiler: {f'triton {found.triton}' if found.triton else '–'}, {found.compiler or '–'}")
    return ok(" · ".join([*parts, *(facts.engine.choices if facts.engine else ())]))


def _without(facts: Facts, part: str, otherwise: Message, state: str = "note") -> Finding:
    failure = facts.failures.get(part)
    if failure is not None:
        return Finding("fault", messages=(failure,))
    return Finding("fault" if state == "fault" else "note", messages=(otherwise,))


def _system(facts: Facts) -> SystemFacts:
    return known_part(facts, SystemFacts, "system")


def _card(card: CardFacts) -> str:
    capability = f" ({card.capability[0]}.{card.capability[1]})" if card.capability else ""
    return f"{card.name}{capability} {gibibytes(card.free)} / {gibibytes(card.total)} GiB"


CHECKS = (
    Check("python", python),
    Check("processor", processor),
    Check("environment", environment),
    Check("packages", packages, "packages"),
    Check("torch", torch),
    Check("gpu", gpu),
    Check("llama-cpp", llama_cpp),
    Check("kernels", kernels),
)
