"""Makes the process's environment one in which the libraries can be imported; it reads no setting of ours."""

import contextlib
import os
import ssl
import sys
import tempfile
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from typing import TextIO

from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import text
from magistral_ui.proxies import CERTIFICATES

GRADIO_PREFIX = "GRADIO_"
"""What the variables begin with by which Gradio is made to serve otherwise than this app says: without an end, with other files,
another path, other code."""
KEPT_VARIABLES = ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT", "GRADIO_TEMP_DIR")
"""Those that hold here, too: where to listen on a Hugging Face Space, and a folder for uploads."""
UPLOAD_VARIABLE = "GRADIO_TEMP_DIR"
NUMERIC_VARIABLES = ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that libraries read as whole numbers at their import."""


def settle(environment: MutableMapping[str, str]) -> list[str]:
    """Change `environment` so that no library fails over it; what the operator has to know, in sentences.

    Raises BadSetting where files that visitors send cannot be kept.
    """
    told = _certificates(environment)
    for name in ("no_proxy", "NO_PROXY"):
        if name in environment:
            environment[name] = without_brackets(environment[name])
    for name in ("all_proxy", "ALL_PROXY", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        scheme, separator, rest = environment.get(name, "").partition("://")
        if separator and scheme.lower() == "socks":  # so GNOME writes what its settings mean as SOCKS 5
            environment[name] = f"socks5://{rest}"
    for name in NUMERIC_VARIABLES:
        if name in environment and not environment[name].strip().isdecimal():
            del environment[name]
    for name in [name for name in environment if name.startswith(GRADIO_PREFIX) and name not in KEPT_VARIABLES]:
        del environment[name]
    environment.setdefault(
        "PATH", os.defpath
    )  # a library of Gradio's looks for programs without asking whether it is there
    environment["GRADIO_ANALYTICS_ENABLED"] = "False"
    # Gradio reads them when it is imported; that they hold on a Space only is settings.py's business.
    if "SPACE_ID" not in environment:
        for name in ("GRADIO_SERVER_NAME", "GRADIO_SERVER_PORT"):
            environment.pop(name, None)
    environment[UPLOAD_VARIABLE] = upload_folder(environment.get(UPLOAD_VARIABLE))
    return told


def upload_folder(named: str | None) -> str:
    """The folder for what visitors send, which is made and tried: the one that is `named`, or one below the system's own.

    Gradio's own choice is one folder for all users of a machine, where the first of them lets nobody else write.
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
        told = os.environ.get("TMPDIR") or tempfile.gettempprefix()
        raise BadSetting("folder_unusable", name="TMPDIR", folder=told, reason=_reason(error)) from error


def without_brackets(names: str) -> str:
    """A list of names that no proxy leads to, as all clients read it: `::1` and not `[::1]`, and no blanks."""
    each = (name.strip() for name in names.replace(" ", ",").split(","))
    return ",".join(name.removeprefix("[").partition("]")[0] if name.startswith("[") else name for name in each if name)


def open_streams() -> None:
    """Give the process the three streams that it may have been started without, and let no sign of a text end it.

    Without them, the first files to be opened would take their numbers, and what a library prints would go into one of these.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115  # as long as the process
        with contextlib.suppress(AttributeError):  # a stream of somebody's own
            getattr(sys, name).reconfigure(errors="replace")


def tell(line: str, stream: TextIO | None = None) -> None:
    """Write `line` for the operator. A disk that is full, or a program that reads no more, ends nothing that is served."""
    with contextlib.suppress(OSError, ValueError):
        print(line, flush=True, file=stream)


def quiet_warnings() -> None:
    """Warnings of libraries are for whoever changes them; made errors by PYTHONWARNINGS, they would end the import."""
    if sys.warnoptions:
        warnings.simplefilter("ignore")


def _certificates(environment: MutableMapping[str, str]) -> list[str]:
    """Leave out certificates that are not there, as after a conda environment was removed; then the usual ones hold."""
    told = []
    for name in CERTIFICATES:
        if not environment.get(name):
            environment.pop(name, None)
            continue
        named = os.path.expanduser(environment[name].strip())
        if _are_certificates(named):
            environment[name] = named
        else:
            del environment[name]
            told.append(text("app_no_certificates", name=name, value=named))
    return told


def _are_certificates(named: str) -> bool:
    # OpenSSL takes several folders, parted as in PATH.
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
