"""What the probes find with the demo model and an empty cache, in this process."""

import os
import re
import shutil
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch

from magistral_ui.doctor import package_probe
from magistral_ui.doctor.answers import read
from magistral_ui.doctor.facts import EngineFacts, HubFacts, SafeguardFacts, StorageFacts, SystemFacts, TorchFacts
from magistral_ui.doctor.package_probe import package_facts
from magistral_ui.doctor.system_probe import (
    choice_facts,
    has_torch,
    memory_limit,
    port_facts,
    system_facts,
    zerogpu_granted,
)
from magistral_ui.engines.local import engine_probe, safeguard_probe
from magistral_ui.engines.local.decoder import Decoder
from magistral_ui.engines.local.engine_probe import differences, engine_facts, reference
from magistral_ui.engines.local.safeguard_probe import out_of_memory_is_named, safeguard_facts
from magistral_ui.engines.local.torch_probe import torch_facts
from magistral_ui.engines.weights import hub_cache, hub_probe
from magistral_ui.engines.weights.devices import find_device
from magistral_ui.engines.weights.gguf_record import HeldFile, HeldModel, record_model
from magistral_ui.engines.weights.hub_probe import hub_facts
from magistral_ui.engines.weights.loader import load
from magistral_ui.engines.weights.pinned_revision import REFERENCE
from magistral_ui.engines.weights.source import ModelSource
from magistral_ui.engines.weights.storage_probe import storage_facts
from magistral_ui.models.cards import DEMO
from magistral_ui.models.folder import DEMO_FOLDER


def all_of(found: Iterator[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for each in found:
        whole |= each
    return whole


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_probe, "RUN_SECONDS", 0.0)
    monkeypatch.setattr(engine_probe, "MIN_RUNS", 1)


def test_the_engine_computes_as_transformers_does() -> None:
    found = read(EngineFacts, all_of(engine_facts("demo", "cpu")))
    assert (found.model, found.precision, found.layers, found.all_layers) == ("demo", "float32", 4, 4)
    assert found.differences.keys() == {"prefill", "decode", "8 together"}
    assert 0 < max(found.differences.values()) < 1e-3
    assert (found.failure, found.reply_tokens, found.missing) == ("", engine_probe.REPLY_TOKENS, None)
    assert [each.sequences for each in found.paces] == [1, 8]


def test_a_model_that_is_not_here_is_not_downloaded() -> None:
    found = engine_facts("ministral-3-3b", "cpu", "nf4")
    told = [next(found) for _ in range(4)]  # what comes before loading
    assert {"missing": ["doctor_model_missing", {}]} in told
    assert {"model": "demo"} in told
    found.close()


def test_the_first_layers_are_enough_and_a_wrong_weight_is_noticed() -> None:
    source, device = ModelSource(DEMO, DEMO_FOLDER, "demo"), find_device("cpu")
    loaded = load(source, device, "float32", lambda _: None, layers=2)
    assert (loaded.shape.layers, loaded.all_layers) == (2, 4)
    wanted = reference(loaded)
    decoder = Decoder(loaded.model)
    assert max(differences(decoder, wanted).values()) < 1e-3
    with torch.no_grad():
        loaded.model.model.language_model.norm.weight[0] += 1.0
    assert max(differences(decoder, wanted).values()) > 0.01


def test_safeguards_work_with_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(SafeguardFacts, all_of(safeguard_facts()))
    assert found.out_of_memory_named
    assert found.types_refused
    assert 0 < found.position_scale < 1e-3
    monkeypatch.setattr(safeguard_probe, "first_error_raised", nullcontext)
    assert not out_of_memory_is_named(), "transformers alone says nothing of memory"


def test_torch_and_its_device_are_described() -> None:
    found = read(TorchFacts, all_of(torch_facts("cpu")))
    assert found.version == torch.__version__
    assert (found.type, found.cards) == ("cpu", ())
    assert "nf4" in found.precisions


def test_the_computer_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read(SystemFacts, all_of(system_facts()))
    assert found.cores > 0
    assert found.memory > found.free > 0
    assert found.zerogpu_granted is None
    assert 0 < 2 * zerogpu_granted() <= 61
    assert all_of(choice_facts("x.gguf", "auto")) == {"gguf": True}
    assert all_of(choice_facts("demo", "nf4")) == {"gguf": False}


def test_a_port_is_free_or_not() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert all_of(port_facts("127.0.0.1", port))["problem"][0] == "port_in_use"
    assert all_of(port_facts("127.0.0.1", port)) == {}


def test_offline_the_hub_is_not_asked() -> None:
    found = read(HubFacts, all_of(hub_facts()))
    assert found.offline
    assert (found.problem, found.milliseconds) == (None, 0)


class Hub(BaseHTTPRequestHandler):
    """Answers with the status that stands in the token."""

    def do_GET(self) -> None:
        self.send_response(int(self.headers.get("Authorization", "Bearer 200").split()[-1]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("token", "state", "problem"),
    [
        (None, "none", None),
        ("200", "accepted", None),
        ("401", "refused", "token_refused"),
        ("503", "unknown", "doctor_hub_failed"),
        ("down", "unknown", "doctor_hub_unreachable"),
    ],
)
def test_the_hub_is_asked(token: str | None, state: str, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        port = server.server_port
        if token == "down":
            server.shutdown()
            server.server_close()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
        found = read(HubFacts, all_of(hub_facts()))
        server.shutdown()
        serving.join()
    assert (found.token, found.problem and found.problem.key) == (state, problem)
    assert found.custom


def test_what_is_on_disk_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "hub"
    blobs, snapshot = cache / "models--a--b" / "blobs", cache / "models--a--b" / "snapshots" / "1"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "1.partial").write_bytes(b"x" * 10)
    for copy in (blobs / "2", snapshot / "model.safetensors"):
        with copy.open("wb") as file:
            file.truncate(2 * 10**8)
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_CACHE", str(cache))
    found = read(StorageFacts, all_of(storage_facts(str(tmp_path / "data"))))
    assert (found.partial, found.partial_bytes, found.twice_bytes) == (1, 10, 2 * 10**8)
    assert (found.cache_problem, found.data_problem, found.symlinks) == ("", "", True)
    assert found.data == str(tmp_path / "data")
    assert min(found.cache_free, found.temporary_free) > 0


def test_libraries_are_listed_with_their_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    found = package_facts(skipped=[])
    listed = next(found)["packages"]
    assert listed["torch"]["fits"]
    assert listed["torch"]["wanted"] == "==2.13.0"
    assert listed["gradio"]["version"]
    assert listed["mcp"]["wanted"] == ""
    assert not [each for each in listed.values() if each["also"]]
    assert next(found)["stage"] in listed


def test_a_proxy_that_cannot_be_used_is_no_fault_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """httpx2 reads all proxies when gradio is imported."""
    seen: list[str | None] = []
    monkeypatch.setattr(package_probe, "import_module", lambda name: seen.append(os.environ.get("https_proxy")))
    monkeypatch.setenv("https_proxy", "http://ann:pa/ss@proxy:80")
    assert package_probe._import_error("gradio") == ""
    assert seen == [None]


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    place = folder / (re.sub("[-.]", "_", name).lower() + f"-{version}.dist-info")
    place.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (place / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires)]) + "\n")


def test_half_an_update_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is there in two versions, and one whose own requirement is there in another."""
    install(tmp_path, "Made.Up", "1.0", "made_down>=2; python_version >= '3'", "none; extra == 'x'")
    install(tmp_path / "old", "made-up", "0.9")
    install(tmp_path, "made-down", "1.5")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(tmp_path / "old"), str(tmp_path), *sys.path])
    installed = package_probe._installed()
    assert installed["made-down"] == ["1.5"]
    assert package_probe._around("made-up", installed) == {
        "also": "1.0, 0.9",
        "lacks": "made_down>=2",
        "instead": "1.5",
    }
    assert package_probe._around("made-down", installed) == {"also": ""}


@pytest.mark.parametrize(
    ("machine", "there"),
    [
        (("Linux", "x86_64", ("glibc", "2.36")), True),
        (("Linux", "x86_64", ("glibc", "2.17")), False),
        (("Linux", "x86_64", ("", "")), False),  # musl
        (("Linux", "i686", ("glibc", "2.36")), False),
        (("Darwin", "arm64", ("", "")), True),
        (("Darwin", "x86_64", ("", "")), False),
        (("Windows", "AMD64", ("", "")), True),
    ],
)
def test_where_torch_has_builds(machine: tuple[str, str, tuple[str, str]], there: bool) -> None:
    assert has_torch(*machine) == there


@pytest.mark.parametrize(
    ("file", "text", "limit"),
    [
        ("memory.max", "8589934592\n", 2**33),
        ("memory.max", "max\n", None),
        ("memory/memory.limit_in_bytes", "1024", 1024),
        ("other", "1", None),
    ],
)
def test_a_container_s_limit_is_read(file: str, text: str, limit: int | None, tmp_path: Path) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    assert memory_limit(tmp_path) == limit


@pytest.mark.parametrize(
    ("code", "key"), [(10, "doctor_clock"), (9, "doctor_clock"), (18, "hub_certificate"), (None, "hub_certificate")]
)
def test_a_wrong_clock_is_told_from_a_stranger_s_certificate(code: int | None, key: str) -> None:
    refused = ssl.SSLCertVerificationError("x")
    if code is not None:
        refused.verify_code = code
    assert hub_probe._of_certificate(refused, "https://x").key == key


@pytest.mark.parametrize("endpoint", ["hf-mirror.com", "ftp://x", "https://", "https://x:port", "https://x:99999"])
def test_an_address_that_is_none_is_not_asked(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    found = read(HubFacts, all_of(hub_facts()))
    assert found.problem is not None
    assert found.problem.key == "doctor_endpoint"


def test_a_token_that_no_header_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_ä")
    found = read(HubFacts, all_of(hub_facts()))
    assert (found.token, found.problem and found.problem.key) == ("refused", "token_refused")


COMMIT = "c" * 40
EMPTY_GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)
"""A header of version 3 with no tensors and no values."""


def test_a_damaged_model_is_named_and_a_half_downloaded_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("whole", "cut", "begun"):
        folder = tmp_path / f"models--ann--{name}"
        shutil.copytree(DEMO_FOLDER, folder / "snapshots" / COMMIT)
        reference = folder / "refs" / REFERENCE
        reference.parent.mkdir(parents=True)
        reference.write_text(COMMIT)
    weights = f"snapshots/{COMMIT}/model.safetensors"
    os.truncate(tmp_path / "models--ann--cut" / weights, 2_000_000)
    (tmp_path / "models--ann--begun" / weights).unlink()
    found = read(StorageFacts, all_of(storage_facts(str(tmp_path))))
    assert found.models == ("ann/whole",)
    (damage,) = found.damaged
    assert (damage.key, damage.values["model"], damage.values["file"]) == (
        "model_files_broken",
        "ann/cut",
        "model.safetensors",
    )


def test_a_gguf_file_is_whole_or_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_cache.constants, "HF_HUB_CACHE", str(tmp_path))
    for label, size in (("Q4_K_M", len(EMPTY_GGUF)), ("Q8_0", 1_000)):
        file = HeldFile(repository="ann/x-GGUF", commit=COMMIT, name=f"x-{label}.gguf", size=size, sha256="0" * 64)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        file.path.write_bytes(EMPTY_GGUF)
        record_model("ann/x-GGUF", HeldModel(label=label, files=(file,)))
    found = read(StorageFacts, all_of(storage_facts(str(tmp_path))))
    assert found.models == ("ann/x-GGUF:Q4_K_M",)
    assert [(each.key, each.values["file"]) for each in found.damaged] == [("gguf_cut_off", "x-Q8_0.gguf")]
