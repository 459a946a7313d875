"""The spaces package itself: off ZeroGPU its decorator changes nothing; on ZeroGPU the whole app runs on it, the card aside."""

from pathlib import Path

import psutil
import pytest
from gradio_client import Client

from magistral_ui.engines.zerogpu.engine import ZeroGPUEngine
from space.push import gather
from tests.engines.contract import EngineContract, all_events, words
from tests.engines.zerogpu.lending import lending
from tests.space.starting import started, until_ready

ROOT = Path(__file__).parents[3]
ENDING = 30.0
"""Seconds for which a process that was killed may still be taken down on a busy machine."""


def test_off_zerogpu_the_decorator_changes_nothing() -> None:
    import spaces

    engine = ZeroGPUEngine("demo", decorate=spaces.GPU)
    engine.start()
    generation = engine.submit(EngineContract().ask(engine))
    assert "**42**" in words(all_events(generation))[1]
    engine.close()


def test_a_space_is_lent_its_gpu(tmp_path: Path) -> None:
    folder = tmp_path / "space"
    folder.mkdir()
    gather(folder, "zero-a10g", {})
    (tmp_path / "cgroup").write_text("0::/space\n", encoding="utf-8")
    with lending() as service:
        variables = {
            "SPACES_ZERO_GPU": "true",
            "SPACES_ZERO_DEVICE_API_URL": service.url,
            "ZEROGPU_PROC_SELF_CGROUP_PATH": str(tmp_path / "cgroup"),
            "ZEROGPU_OFFLOAD_DIR": str(tmp_path / "tensors"),
            "MAGISTRAL_UI_MODEL": "demo",
            "PYTHONPATH": str(ROOT),
        }
        command = ("-W", "ignore", "-m", "tests.engines.zerogpu.stand_in", str(folder))
        with started(ROOT, tmp_path / "home", command=command, **variables) as (url, process):
            assert service.asked[0][0] == "/startup-report", "weights were placed before the page was served"
            until_ready(url)
            client = Client(url, verbose=False, httpx_kwargs={"timeout": 60})
            message, parameters = {"text": "What is 487 + 265?", "files": []}, {"temperature": 0.0, "seed": 1}
            reply = client.predict(message, parameters, api_name="/chat")
            assert "752" in reply["answer"]
            (scheduled,) = service.parameters("/schedule")
            assert int(scheduled["durationSeconds"]) >= 10
            assert int(service.parameters("/allow")[0]["pid"]) > 1
            assert service.parameters("/release")[0]["fail"] == "false"
            service.quota = (0, 12_345.0)
            with pytest.raises(Exception, match="GPU time"):
                client.predict(message, parameters, api_name="/chat")
            client.close()
            lent = psutil.Process(process).children(recursive=True)
            assert lent, "the package keeps a process for the next call"
        _, alive = psutil.wait_procs(lent, timeout=ENDING)
        assert not alive, "they end with the app"
