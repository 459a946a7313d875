"""Reads flags and MAGISTRAL_UI_* variables into one frozen Settings; only app.py reads it, and it opens nothing."""

import argparse
import contextlib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NoReturn
from urllib.parse import urlsplit

from magistral_ui import __version__
from magistral_ui.engines.remote.dialects import DIALECTS
from magistral_ui.engines.remote.server_address import read_base_url
from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import text
from magistral_ui.models.gguf_plan import QUANTIZATIONS
from magistral_ui.web.exposure import MAX_PROXIES, is_prefix, read_trusted

VARIABLE_PREFIX = "MAGISTRAL_UI_"
SPACE_DEFAULTS = {"host": ("GRADIO_SERVER_NAME", "0.0.0.0"), "port": ("GRADIO_SERVER_PORT", "7860")}
"""On a Hugging Face Space, which sets SPACE_ID: the variable that stands for a flag, and the default without it."""

OLD_IPV4 = re.compile(r"(?:0x[\da-f]+|\d+)(?:\.(?:0x[\da-f]+|\d+)){0,3}", re.ASCII | re.IGNORECASE)
"""Older spellings of an address: `0` is 0.0.0.0, `127.1` is 127.0.0.1 (inet_aton)."""
HOST_NAME = re.compile(r"[\w.:%-]+")
"""A name or an address in a URL; anything else is a typing mistake."""


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag, `--name`, and its variable; its help is the text `flag_<name>`."""

    name: str
    metavar: str
    read: Callable[[str], str | int]
    """The value in its own type; ValueError for an impossible one."""
    switch: bool = False
    """Whether the flag alone means yes."""
    refusal: str = "bad_setting"
    """The sentence about an impossible value."""

    @property
    def option(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return VARIABLE_PREFIX + self.name.upper()

    @property
    def expected(self) -> str:
        return f"{self.read.low}..{self.read.high}" if isinstance(self.read, _Whole) else self.metavar


def _words(value: str) -> str:
    if not value.strip():
        raise ValueError
    return value.strip()


def _names(value: str) -> str:
    """Names separated by commas, at least one."""
    if not value.replace(",", " ").strip():
        raise ValueError
    return value


def _path(value: str) -> str:
    """A folder or file, with `~` for a user's home; ValueError where that user has none."""
    path = _home(value)
    if re.match(r"~[\w.-]*(?:[/\\]|$)", path):
        raise ValueError
    return path


def _home(value: str) -> str:
    """Something that may be a path: only there does `~` stand for a home."""
    return os.path.expanduser(_words(value))


def _host(value: str) -> str:
    """An address or a name; an IPv6 address may be in brackets, as in a URL."""
    host = _words(value)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") and ":" in host else host
    if OLD_IPV4.fullmatch(host):
        with contextlib.suppress(OSError):  # a number that is too large may still be a name
            host = socket.inet_ntoa(socket.inet_aton(host))
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    # One address has many spellings, and an IPv6 socket does not take IPv4 addresses.
    return str(getattr(address, "ipv4_mapped", None) or address)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Reads a whole number within bounds, both included."""

    low: int
    high: int

    def __call__(self, value: str) -> int:
        number = int(value)
        if not self.low <= number <= self.high:
            raise ValueError
        return number


def _yes_or_no(value: str) -> bool:
    return bool(("no", "yes").index(value))


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError
        return value

    return read


def _precision(value: str) -> str:
    """A precision; the names of llama.cpp's quantizations are taken in lower case, too."""
    return _one_of(*PRECISIONS)(value if value in PRECISIONS else value.upper())


def _share(value: str) -> str:
    url = value.strip().rstrip("/")
    if url in ("yes", "no"):
        return url
    parts = urlsplit(url)
    if (
        parts.scheme not in ("http", "https")
        or not HOST_NAME.fullmatch(parts.hostname or "")
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
    ):
        raise ValueError
    _ = parts.port  # raises ValueError for an impossible one
    if not is_prefix(parts.path):
        raise ValueError
    return url


def _proxies(value: str) -> str:
    read_trusted(value)
    return value


DEVICES = ("auto", "cpu", "gpu", "cuda", "mps")
"""`gpu` is any GPU that an installed library can use; `cuda` is NVIDIA's or AMD's by CUDA or ROCm, and `mps` Apple's."""
ENGINES = ("local", "openai")
PRECISIONS = ("auto", "float32", "bfloat16", "nf4", "int8", *QUANTIZATIONS)
"""The last ones are those of GGUF files, as llama.cpp names them."""
KV_TYPES = ("auto", "f16", "q8_0")


def _flag(default: Any, metavar: str, read: Callable[[str], str | int], **more: Any) -> Any:
    return field(default=default, metadata={"metavar": metavar, "read": read, **more})


@dataclass(frozen=True, slots=True)
class Settings:
    """What the operator chose; None and `auto` leave the choice to the machine."""

    model: str | None = _flag(None, "NAME|PATH", _path)
    """`auto`, a card's key, a repository (`owner/name` or `owner/name:Q4_K_M`), a folder, or a GGUF file; None: the best that is
    downloaded, or the demo model."""
    host: str = _flag("127.0.0.1", "ADDRESS", _host)
    port: int = _flag(7860, "1..65535", _Whole(1, 65_535))
    device: str = _flag("auto", "|".join(DEVICES), _one_of(*DEVICES))
    precision: str = _flag("auto", "|".join(PRECISIONS), _precision)
    kv_type: str = _flag("auto", "|".join(KV_TYPES), _one_of(*KV_TYPES))
    """How a GGUF file's engine keeps keys and values; `auto`: as the memory plan decides."""
    context: int | None = _flag(None, "TOKENS", _Whole(256, 1_048_576))
    """Tokens of prompt and reply together."""
    threads: int | None = _flag(None, "N", _Whole(1, 1_024))
    revision: str | None = _flag(None, "NAME", _words)
    """Commit, tag or branch of the repository; None: the one that ran last, the card's, or the newest."""
    save_quantized: str = _flag("auto", "auto|no|FOLDER", _path)
    """A folder for a quantized copy, which is loaded from then on; `auto` and `no` name none."""
    data_dir: str | None = _flag(None, "FOLDER", _path)
    """A folder for conversations; None: the user's data folder."""
    keep_days: int | None = _flag(None, "DAYS", _Whole(0, 36_500))
    """Days for which a conversation is kept after its last change; 0: nothing is kept on disk; None: for ever."""
    plan: bool = _flag(False, "yes|no", _yes_or_no, switch=True)
    """Print what fits on which hardware, and exit."""
    engine: str = _flag("local", "|".join(ENGINES), _one_of(*ENGINES))
    """`local`: the model runs in this process; `openai`: on an OpenAI-compatible server."""
    base_url: str | None = _flag(None, "URL", read_base_url)
    """That server's address, with its version: `http://127.0.0.1:8000/v1`."""
    dialect: str | None = _flag(None, "|".join(DIALECTS), _one_of(*DIALECTS))
    """The kind of server; None: auto-detected."""
    share: str = _flag("no", "yes|no|URL", _share, switch=True)
    """`yes`: through Gradio's share link; a URL: through a proxy of the operator's own at that address."""
    trusted_proxies: str | None = _flag(None, "N|CIDR,CIDR", _proxies, refusal="bad_proxies")
    """How many proxies are in front of the page, or their networks; None: as many as `share` implies."""
    auth: str | None = _flag(None, "NAME:PASSWORD|FILE", _home)
    """`name:password`, or a file with one of these a line; on a Space also `huggingface`."""
    no_password: bool = _flag(False, "yes|no", _yes_or_no, switch=True)
    """Whoever can reach the page may use it."""
    admin: str | None = _flag(None, "NAME[,NAME]", _names)
    """The names of `--auth`, or at Hugging Face, that may switch models on a shared page."""
    idle_minutes: int = _flag(0, "MINUTES", _Whole(0, 10_080))
    """Minutes without a reply after which the model is unloaded; 0: never."""
    limits: str | None = _flag(None, "local|shared|FILE", _path)
    """`local`, `shared`, or a JSON file; None: `shared` where others can reach the page."""


FLAGS = tuple(Flag(each.name, **each.metadata) for each in fields(Settings))


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Flags over variables over defaults. Raises BadSetting; `--help` and `--version` print and exit with 0."""
    flags = vars(_parser().parse_args(arguments))
    chosen: dict[str, str | int] = {}
    for flag in FLAGS:
        given, name = flags[flag.name], flag.option
        if given is None:
            given, name = environment.get(flag.variable) or None, flag.variable
        if given is None and flag.name in SPACE_DEFAULTS and environment.get("SPACE_ID"):
            name, default = SPACE_DEFAULTS[flag.name]
            given = environment.get(name) or default
        if given is None:
            continue
        try:
            chosen[flag.name] = flag.read(given.strip() or given)
        except ValueError as error:
            values = {"name": name, "value": given, "expected": flag.expected, "limit": MAX_PROXIES}
            raise BadSetting(flag.refusal, **values) from error
    if "base_url" in chosen and "engine" not in chosen:
        chosen["engine"] = "openai"  # nothing else could be meant
    if chosen.get("engine") == "openai" and "base_url" not in chosen:
        raise BadSetting("base_url_missing")
    return Settings(**chosen)  # type: ignore[arg-type]  # each flag reads its field's own type


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadSetting("bad_flag", detail=message)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="app.py",
        description=text("app_description"),
        epilog=f"{text('app_variables', prefix=VARIABLE_PREFIX)} {text('app_doctor_hint')}",
        allow_abbrev=False,
        argument_default=None,
    )
    defaults = Settings()
    for flag in FLAGS:
        default = getattr(defaults, flag.name)
        help_text = text(f"flag_{flag.name}")
        if default is not None and not flag.switch:
            help_text += f" [{default}]"
        once: dict[str, str] = {"nargs": "?", "const": "yes"} if flag.switch else {}
        parser.add_argument(
            flag.option,
            dest=flag.name,
            metavar=flag.metavar,
            help=help_text.replace("%", "%%"),
            **once,  # type: ignore[arg-type]
        )
    parser.add_argument("--version", action="version", version=__version__, help=text("flag_version"))
    return parser
