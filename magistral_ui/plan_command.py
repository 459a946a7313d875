"""Prints what fits, for `app.py --plan`: on common hardware, on this machine, or of one GGUF file; it loads no model."""

import sys
from pathlib import Path

from magistral_ui.engines.base import ModelRequest
from magistral_ui.engines.gguf.devices import find_llama_device
from magistral_ui.engines.gguf.fitting import plan_fitting
from magistral_ui.engines.gguf.pace import estimated_gguf_pace, read_bytes
from magistral_ui.engines.switching.machine import Machine, find_machine, has_llama_cpp, has_torch
from magistral_ui.engines.weights.quantized_cache import copies_folder, copies_held
from magistral_ui.i18n.texts import sentence, text
from magistral_ui.models.folder import check_name
from magistral_ui.models.gguf_file import inspect_gguf
from magistral_ui.models.gguf_folder import holds_gguf, mmproj_beside, model_in
from magistral_ui.models.gguf_header import is_gguf
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.models.plan_table import file_lines, ladder_lines, machine_lines
from magistral_ui.models.shape import ModelShape

TIMING_SECONDS = 15.0
"""Seconds at most; on an idle computer it takes three."""


def print_plan(
    model: str | None,
    device: str = "auto",
    *,
    precision: str = "auto",
    threads: int | None = None,
    kv_type: str = "auto",
    context: int | None = None,
) -> None:
    """Print what fits on common hardware, at once; then what fits on this machine, and how fast, which libraries are asked.

    With a GGUF file, or a folder that holds it, as the `model`: that file's plan, from its header. Raises ModelError for what
    cannot run.
    """
    if model:
        check_name(model, precision)
        path = Path(model).expanduser()
        if is_gguf(path) or holds_gguf(path):
            _print_file_plan(model_in(path, precision) if path.is_dir() else path, device, kv_type, context)
            return
    for line in ladder_lines(torch=has_torch(), gguf=has_llama_cpp()):
        print(line)
    sys.stdout.flush()
    machine = find_machine(device, threads)
    paces = QuickPaces(machine)
    for line in machine_lines(
        machine.name,
        machine.place,
        machine.precisions,
        machine.good,
        paces.timed,
        machine.gguf,
        paces.known,
    ):
        print(line, flush=True)
    if machine.hindrance is not None:
        print("\n" + sentence(machine.hindrance))
    count, size = copies_held()
    if count:
        print("\n" + text("plan_copies", count=count, size=f"{size / 2**30:.1f}", folder=str(copies_folder())))


class QuickPaces:
    """What is known of a machine's paces; llama.cpp is timed once if need be, and all its models follow by their bytes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._bytes_per_second: float | None = None
        self._tried = False

    def known(self, shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        """What earlier replies and timings tell; nothing is timed."""
        tokens, measured = self._machine.known_pace()(shape, precision)
        if tokens is None and precision in QUANTIZATIONS and self._bytes_per_second is not None:
            tokens = self._bytes_per_second / read_bytes(shape, precision)
        return tokens, measured

    def timed(self, shape: ModelShape, precision: str) -> tuple[float | None, bool]:
        """The same, after timing what is not known: with llama.cpp only once, and for a few seconds."""
        tokens, measured = self.known(shape, precision)
        llama = self._machine.llama
        if tokens is not None or precision not in QUANTIZATIONS or llama is None:
            return (tokens, measured) if tokens is not None else self._machine.pace(shape, precision)
        if not self._tried:
            self._tried = True
            timed = estimated_gguf_pace(shape, precision, llama, lambda: None, TIMING_SECONDS)
            self._bytes_per_second = timed and timed * read_bytes(shape, precision)
        return self.known(shape, precision)


def _print_file_plan(file: Path, wanted: str, kv_type: str, context: int | None) -> None:
    """Print how this machine's memory would be divided for a GGUF file; nothing but headers is read."""
    facts, _ = inspect_gguf(file)
    if (beside := mmproj_beside(file, facts.shape.hidden, facts.name)) is not None:
        facts = facts.with_mmproj(beside[1])
    device = find_llama_device(wanted)
    place = device.place
    request = ModelRequest(str(file), kv_type=kv_type, context_length=context)
    planned = plan_fitting(facts.name, facts, request, device)
    name, free, total = device.name, f"{place.free / 2**30:.1f}", f"{place.total / 2**30:.1f}"
    print(text("plan_machine", name=name, free=free, total=total) + "\n")
    for line in file_lines(facts.name, planned, facts.shape.layers):
        print(line)
