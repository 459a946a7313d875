"""The service that lends ZeroGPU's cards, on loopback: answers the spaces package, and writes down what it is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.loopback import Answering, listening


@dataclass
class Lending:
    """What was asked, in order: path and parameters."""

    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    quota: tuple[int, float] | None = None
    """Seconds left and seconds to wait: the answer to who asks next."""

    def parameters(self, path: str) -> list[dict[str, str]]:
        return [parameters for asked, parameters in self.asked if asked == path]


class Handler(Answering):
    lending: Lending

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        lending = self.lending
        lending.asked.append((parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}))
        if parts.path != "/schedule":
            self.say({})
        elif lending.quota is not None:
            self.say({"left": lending.quota[0], "wait": lending.quota[1]}, 429)
        else:
            number = len(lending.parameters("/schedule"))
            token = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": f"token-{number}"}
            self.say(token)


@contextmanager
def lending() -> Iterator[Lending]:
    """The service, meanwhile."""
    made = Lending()
    with listening(Handler, lending=made) as port:
        made.url = f"http://127.0.0.1:{port}"
        yield made
