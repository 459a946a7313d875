"""The process's environment: made one in which the libraries can be imported, and read for proxies and certificates."""

import contextlib
import ipaddress
import os
import ssl
import sys
import tempfile
import warnings
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from magistral_ui.errors import BadSetting, Message

GRADIO_PREFIX = "GRADIO_"
"""How the variables begin that would make Gradio serve other files, other code, or at another path than this app says."""
KEPT_VARIABLES = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_TEMP_DIR")
"""Those that count here, too: where to listen on a Hugging Face Space, and the folder for uploads."""
UPLOAD_VARIABLE = "GRADIO_TEMP_DIR"
NUMERIC_VARIABLES = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that libraries read as whole numbers when they are imported."""
SCHEMES = ("http", "https", "all")
"""For what a proxy can be named: `http_proxy`, `https_proxy` and `all_proxy`, in lower or upper case."""
CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The certificates that OpenSSL trusts, and with it all clients of this process."""


def prepare_environment(environment: MutableMapping[str, str]) -> list[Message]:
    """Change `environment` so that no library fails because of it; return what the operator has to know. Raises BadSetting."""
    warnings = _certificates(environment)
    for name in ("no_proxy", "NO_PROXY"):
        if name in environment:
            environment[name] = without_brackets(environment[name])
    for name in ("all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        scheme, separator, rest = environment.get(name, "").partition("://")
        if separator and scheme.lower() == "socks":  # GNOME writes this for SOCKS 5
            environment[name] = f"socks5://{rest}"
    for name in NUMERIC_VARIABLES:
        if name in environment and not environment[name].strip().isdecimal():
            del environment[name]
    for name in [name for name in environment if name.startswith(GRADIO_PREFIX) and name not in KEPT_VARIABLES]:
        del environment[name]
    environment.setdefault("PATH", os.defpath)  # a library of Gradio's searches it without asking whether it is set
    environment["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Gradio reads these when it is imported; settings.py reads them on a Space only.
    if "SPACE_ID" not in environment:
        for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
            environment.pop(name, None)
    environment[UPLOAD_VARIABLE] = upload_folder(environment.get(UPLOAD_VARIABLE))
    return warnings


def upload_folder(named: str | None) -> str:
    """Make and try the folder for uploads: the one that is `named`, or one below the system's temporary folder.

    Gradio's default is one folder for all users of a machine, in which only the first of them can write.
    """
    if named and named.strip():
        folder = Path(named.strip()).expanduser()
        try:
            _try(folder)
        except (OSError, ValueError) as error:
            raise BadSetting(
                "folder_unusable", name=UPLOAD_VARIABLE, folder=str(folder), reason=_reason(error)
            ) from error
        return str(folder.absolute())
    try:
        usual = Path(tempfile.gettempdir()) / "gradio"
        try:
            _try(usual)
        except OSError:
            return tempfile.mkdtemp(prefix="magistral-ui-")
        return str(usual.resolve())
    except OSError as error:
        parent = os.environ.get("TMPDIR") or tempfile.gettempprefix()
        raise BadSetting("folder_unusable", name="TMPDIR", folder=parent, reason=_reason(error)) from error


def without_brackets(names: str) -> str:
    """The value of `no_proxy` as all clients read it: `::1` and not `[::1]`, and no blanks."""
    each = (name.strip() for name in names.replace(" ", ",").split(","))
    return ",".join(name.removeprefix("[").partition("]")[0] if name.startswith("[") else name for name in each if name)


def open_streams() -> None:
    """Open the standard streams that the process may have been started without, and let no character end it.

    Without them, the first files to be opened would take their numbers, and what a library prints would go into these.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  # as long as the process
        with contextlib.suppress(AttributeError):  # a replaced stream
            getattr(sys, name).reconfigure(errors="replace")


def tell(line: str, stream: TextIO | None = None) -> None:
    """Write `line` for the operator. Neither a full disk nor a closed pipe ends the app."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True, file=stream)


def quiet_warnings() -> None:
    """Ignore the warnings of libraries: made errors by PYTHONWARNINGS, they would end the import."""
    if sys.warnoptions:
        warnings.simplefilter("ignore")


class ProxyUnusable(OSError):
    """The proxy in the variable `name` cannot be used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def named_proxies() -> dict[str, str]:
    """The proxies to use, by scheme, from the variables or else the system's settings; none where `no_proxy` is `*`."""
    named = getproxies()
    if "*" in (each.strip() for each in named.get("no", "").split(",")):
        return {}
    return {scheme: named[scheme] for scheme in SCHEMES if named.get(scheme)}


def check_proxies() -> None:
    """Raises ProxyUnusable for the first that cannot be used: a client reads all of them, even where it needs only one."""
    for scheme, url in named_proxies().items():
        if not _is_usable(url):
            names = (f"{scheme}_proxy", f"{scheme}_proxy".upper())
            raise ProxyUnusable(next((name for name in names if os.environ.get(name)), names[0]))


def proxy_for(url: str) -> str:
    """The proxy for requests to `url`; empty if they are sent directly, as to this machine. Raises ProxyUnusable."""
    parts = urlsplit(url)
    if is_here(parts.hostname or ""):
        return ""
    check_proxies()
    named = named_proxies()
    proxy = named.get(parts.scheme) or named.get("all", "")
    if not proxy or proxy_bypass(parts.netloc):
        return ""
    return proxy if "://" in proxy else f"http://{proxy}"


@contextmanager
def without_proxies() -> Iterator[None]:
    """Meanwhile, requests go through no proxy, and no file of certificates is read.

    For requests of the app to itself, and for clients that a library makes when it is imported: an unusable proxy, or missing
    certificates, would end both. `*` also switches off the proxies in the settings of Windows and macOS.
    """
    names = [*CERTIFICATES, *(f"{scheme}_proxy" for scheme in (*SCHEMES, "no"))]
    held = {name: value for name, value in os.environ.items() if name in names or name.lower() in names}
    for name in held:
        del os.environ[name]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "*"
    try:
        yield
    finally:
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
        os.environ.update(held)


def is_here(host: str) -> bool:
    """Whether `host` is this machine, which no proxy leads to."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def _certificates(environment: MutableMapping[str, str]) -> list[Message]:
    """Drop the names of certificates that do not exist, as after a conda environment was removed; then the usual ones hold."""
    warnings = []
    for name in CERTIFICATES:
        if not environment.get(name):
            environment.pop(name, None)
            continue
        named = os.path.expanduser(environment[name].strip())
        if _are_certificates(named):
            environment[name] = named
        else:
            del environment[name]
            warnings.append(Message("app_no_certificates", {"name": name, "value": named}))
    return warnings


def _are_certificates(named: str) -> bool:
    # OpenSSL takes several folders, separated as in PATH.
    if any(os.path.isdir(each) for each in named.split(os.pathsep)):
        return True
    try:
        ssl.create_default_context(cafile=named)
    except (OSError, ValueError):  # SSLError is an OSError
        return False
    return True


def _try(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _is_usable(url: str) -> bool:
    from httpx2 import InvalidURL, Proxy

    address = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(address)
        possible = bool(parts.hostname) and (parts.port or 1) > 0 and not any(sign.isspace() for sign in url)
        scheme = Proxy(address).url.scheme
    except (InvalidURL, ValueError):
        return False
    return possible and (scheme in ("http", "https") or find_spec("socksio") is not None)
