"""Reasons in llama.cpp's log, also those of devices that this machine lacks."""

import pytest

from magistral_ui.engines.gguf.failure_reasons import (
    MAX_REASON,
    ModelNames,
    crash_reason_of,
    last_error,
    reason_of,
    signal_name,
)
from magistral_ui.i18n.texts import sentence, strings

NAMES = ModelNames("Magistral", "model.gguf", "mmproj.gguf", "NVIDIA L4", 40_960)
ALONE = ModelNames("Magistral", "model.gguf", "", "NVIDIA L4", 40_960)
LINES = {
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 13669.14 MiB on device 0: cudaMalloc failed: out of memory": (
        "gguf_out_of_memory"
    ),
    "0.01.2.3 E llama_model_load: error loading model: unable to allocate CUDA0 buffer": "gguf_out_of_memory",
    "ggml_vulkan: Device memory allocation of size 1073741824 failed. vk::Device::allocateMemory: ErrorOutOfDeviceMemory": (
        "gguf_out_of_memory"
    ),
    "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache": (
        "gguf_context_too_large"
    ),
    "error loading model: mmap failed: Cannot allocate memory": "gguf_out_of_memory",
    "terminate called after throwing an instance of 'std::bad_alloc'": "gguf_out_of_memory",
    "CUDA error: the launch timed out and was terminated": "gguf_card_failed",
    "ROCm error: invalid device function": "gguf_card_failed",
    "ggml_vulkan: vk::Queue::submit: ErrorDeviceLost": "gguf_card_failed",
    "CUDA driver version is insufficient for CUDA runtime version": "gguf_card_failed",
    "ggml_metal_synchronize: error: command buffer 0 failed with status 5": "gguf_card_failed",
    "gguf_init_from_file: failed to open GGUF file 'x/model.gguf' (Permission denied)": "model_file_unreadable",
    "error loading model: unknown model architecture: 'mamba9'": "gguf_unsupported",
    "gguf_init_from_reader: tensor 'output.weight' has invalid ggml type 99. should be in [0, 43)": "gguf_unsupported",
    "clip_init: failed to load model 'mmproj.gguf': load_hparams: unknown projector type: new": "gguf_unsupported",
    "mtmd_init_from_file: error: mismatch between text model (n_embd = 192) and mmproj (n_embd = 5120)": (
        "gguf_projector_unusable"
    ),
    "error loading model: tensor 'output.weight' data is not within the file bounds, model is corrupted": (
        "model_files_broken"
    ),
    "srv start: couldn't bind HTTP server socket": "gguf_ended",
    "/build/llama.cpp/src/llama-graph.cpp:17: GGML_ASSERT(ok) failed": "gguf_ended",
}


@pytest.mark.parametrize("line", LINES)
def test_a_line_has_a_reason(line: str) -> None:
    found = reason_of(NAMES, ["0.00.001.000 I srv init: starting", line, "0.1 E srv init: exiting due to x"], 1).message
    assert found.key == LINES[line]
    assert f"error_{found.key}" in strings()
    assert "{" not in sentence(found), "a placeholder is not filled"


def test_the_projector_is_at_fault_only_where_there_is_one() -> None:
    lines = ["clip: something is wrong"]
    assert reason_of(NAMES, lines, 1).message.key == "gguf_projector_unusable"
    assert reason_of(ALONE, lines, 1).message.key == "gguf_ended"


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (-4, "SIGILL"),
        (132, "SIGILL"),
        (0xC000001D, "SIGILL"),
        (0xC000001D - 2**32, "SIGILL"),
        (-7, "SIGBUS"),
        (0xC0000006, "SIGBUS"),
        (-9, "SIGKILL"),
        (137, "SIGKILL"),
        (0, ""),
        (1, ""),
        (None, ""),
    ],
)
def test_return_codes_name_signals(code: int | None, name: str) -> None:
    assert signal_name(code) == name


def test_without_a_log_the_return_code_is_told() -> None:
    assert reason_of(NAMES, [], 1).message.values["reason"] == "exit code 1"
    assert reason_of(NAMES, [], -11).message.values["reason"] == "SIGSEGV"
    answer = {"failed": "load", "detail": "port is taken"}
    assert reason_of(NAMES, [], None, answer).message.values["reason"] == "port is taken"


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        ("mtmd_helper_bitmap_init_from_buf: failed to decode buffer as either image/audio/video", -11, "gguf_ended"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", -6, "out_of_memory"),
        ("CUDA error: the launch timed out and was terminated", -6, "gguf_card_failed"),
        ("srv send_error: request failed", -9, "gguf_killed"),
        ("srv send_error: request failed", -7, "gguf_file_changed"),
    ],
)
def test_a_crash_is_not_put_down_to_the_files_that_were_loaded(line: str, code: int, key: str) -> None:
    assert crash_reason_of(NAMES, [line], code).message.key == key
    assert crash_reason_of(NAMES, [line, *["later"] * 20], -6).message.key == "gguf_ended", "it was long ago"


def test_the_last_line_is_told_without_its_time_and_cut() -> None:
    lines = [
        "0.00.004.997 E srv load_model: it is wrong",
        "0.00.005.470 E srv init: exiting due to model loading error",
    ]
    assert last_error(lines) == "load_model: it is wrong"
    assert len(last_error(["x" * 5_000])) == MAX_REASON
    assert last_error(["0.1 E srv init: exiting due to HTTP server error"]) == "init: exiting due to HTTP server error"
    assert last_error([]) == ""
