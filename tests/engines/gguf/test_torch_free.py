"""The GGUF engine loads a model and writes a reply in a process that has none of the libraries of the local engine."""

from tests.engines.local.test_torch_free import run

REPLY = """
import time
from magistral_ui.chat.prompt import Prompt, UserTurn
from magistral_ui.chat.sampling import SamplingParams
from magistral_ui.engines.base import GenerationRequest, Loading, Ready
from tests.engines.gguf.demo import loaded

if __name__ == "__main__":
    engine = loaded(slots=1)
    prompt = Prompt(engine.card.system(), (UserTurn("What is 12 + 30?"),))
    generation = engine.submit(GenerationRequest(prompt, SamplingParams(temperature=0.0, max_tokens=200), "ann"))
    assert generation.wait(120)
    assert "42" in generation.answer, generation.take()
    engine.close()
    import sys
    assert "bitsandbytes" not in sys.modules
"""


def test_a_reply_is_written_without_torch() -> None:
    run(REPLY)
