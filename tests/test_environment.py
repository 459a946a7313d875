"""The environment is made one that libraries can be imported in: what would end them is mended or left out, the rest is kept."""

import os
from pathlib import Path

import certifi
import pytest

from magistral_ui import environment
from magistral_ui.environment import (
    KEPT_VARIABLES,
    ProxyUnusable,
    check_proxies,
    is_here,
    named_proxies,
    prepare_environment,
    proxy_for,
    tell,
    upload_folder,
    without_brackets,
    without_proxies,
)
from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import text

PROXY = "http://127.0.0.1:9"
NAMES = [name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_PROXY".upper())]


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


def settled(folder: Path, **variables: str) -> tuple[dict[str, str], str]:
    environment = {"GRADIO_TEMP_DIR": str(folder), "PATH": "/bin", **variables}
    told = prepare_environment(environment)
    return environment, " ".join(text(each.key, **each.values) for each in told)


def test_no_variable_of_gradio_s_is_left_but_those_that_are_meant(tmp_path: Path) -> None:
    names = (
        "DEBUG",
        "ROOT_PATH",
        "SHARE",
        "ALLOWED_PATHS",
        "MCP_SERVER",
        "WATCH_DIRS",
        "NUM_PORTS",
        "SERVER_PORT",
        "NEW",
    )
    found, told = settled(tmp_path, **{f"GRADIO_{name}": "1" for name in names})
    assert found == {"GRADIO_TEMP_DIR": str(tmp_path), "GRADIO_ANALYTICS_ENABLED": "False", "PATH": "/bin"}
    assert told == ""
    space, _ = settled(tmp_path, **dict.fromkeys(KEPT_VARIABLES[:2], "1"), SPACE_ID="me/it")
    assert set(KEPT_VARIABLES) <= set(space), "a Space says there where to listen"


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_certificates_that_are_not_there_are_left_out_and_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "garbage.pem").write_text("no certificate")
    for value in (str(tmp_path / "gone"), str(tmp_path / "garbage.pem")):
        found, told = settled(tmp_path, **{name: value})
        assert name not in found
        assert name in told
        assert value in told
    assert settled(tmp_path, **{name: ""})[1] == "", "nothing was named"


def test_certificates_that_are_there_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_bytes(Path(certifi.where()).read_bytes())
    found, told = settled(tmp_path, SSL_CERT_FILE="~/ca.pem", SSL_CERT_DIR=f"/no/such{os.pathsep}{tmp_path}")
    assert found["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")
    assert found["SSL_CERT_DIR"].endswith(str(tmp_path))
    assert told == ""


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("localhost,127.0.0.1,[::1]", "localhost,127.0.0.1,::1"),
        (" a , ,b c", "a,b,c"),
        ("[::1]:8080", "::1"),
        ("*", "*"),
        ("10.0.0.0/8,.corp,*.x", "10.0.0.0/8,.corp,*.x"),
        ("", ""),
    ],
)
def test_names_that_no_proxy_leads_to_are_written_as_clients_read_them(written: str, read: str) -> None:
    assert without_brackets(written) == read


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    found, _ = settled(tmp_path, OMP_NUM_THREADS="junk", HF_HUB_DOWNLOAD_TIMEOUT="", HF_HUB_ETAG_TIMEOUT="30")
    assert "OMP_NUM_THREADS" not in found
    assert "HF_HUB_DOWNLOAD_TIMEOUT" not in found
    assert found["HF_HUB_ETAG_TIMEOUT"] == "30"


def test_a_folder_for_uploads_that_cannot_be_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert upload_folder("~/sent") == str(tmp_path / "sent")
    assert (tmp_path / "sent").is_dir()
    (tmp_path / "file").write_text("")
    for impossible in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadSetting) as refused:
            upload_folder(str(impossible))
        assert refused.value.message.values["folder"] == str(impossible)


def test_another_user_s_folder_for_uploads_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert upload_folder(None) == str(tmp_path / "gradio")
    (tmp_path / "gradio").rmdir()
    (tmp_path / "gradio").write_text("as little to be written in as somebody else's")
    own = Path(upload_folder(None))
    assert own.parent == tmp_path
    assert own.is_dir()


@pytest.mark.parametrize(
    "url",
    [PROXY, "127.0.0.1:9", "http://me:secret@proxy.example:3128/", "socks5://a:1", "socks5h://[::1]:9", "https://a"],
)
def test_proxies_that_clients_can_use_are_let_be(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    check_proxies()
    assert proxy_for("http://model.example:8000/v1") == (url if "://" in url else f"http://{url}")


@pytest.mark.parametrize(
    "url", ["socks4://a:1", "foo bar", "http://[bad", "http://a:999999", "http://a:port", "http://", "ftp://a", "://a"]
)
@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
def test_proxies_that_no_client_can_use_are_named(monkeypatch: pytest.MonkeyPatch, name: str, url: str) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(ProxyUnusable) as refused:
        check_proxies()
    assert refused.value.name == name
    monkeypatch.setenv("no_proxy", "a, *")
    check_proxies()


def test_a_proxy_is_for_its_scheme_and_not_for_exceptions_or_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("https_proxy", "http://s:1"),
        ("all_proxy", "socks5://a:1"),
        ("no_proxy", ".corp.example,10.0.0.9"),
    ):
        monkeypatch.setenv(name, value)
    assert proxy_for("https://model.example/v1") == "http://s:1"
    assert proxy_for("http://model.example/v1") == "socks5://a:1"
    for direct in (
        "https://gpu.corp.example/v1",
        "http://10.0.0.9:8000/v1",
        "http://localhost:1/v1",
        "http://127.0.0.1:1/v1",
    ):
        assert proxy_for(direct) == ""
    monkeypatch.setenv("http_proxy", "junk://a:1")
    assert proxy_for("http://[::1]:1/v1") == "", "what is here needs no proxy, so none has to be usable"
    with pytest.raises(ProxyUnusable):
        proxy_for("https://model.example/v1")


def test_socks_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setattr(environment, "find_spec", lambda name: None)
    with pytest.raises(ProxyUnusable):
        check_proxies()


def test_gnome_s_socks_is_socks_5(tmp_path: Path) -> None:
    found, _ = settled(tmp_path, ALL_PROXY="socks://127.0.0.1:7890/", all_proxy="SOCKS://h:1", http_proxy=PROXY)
    assert found["ALL_PROXY"] == "socks5://127.0.0.1:7890/"
    assert found["all_proxy"] == "socks5://h:1"
    assert found["http_proxy"] == PROXY


def test_alone_neither_variables_nor_the_system_name_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {"HTTP_PROXY": PROXY, "all_proxy": "junk", "NO_PROXY": "a", "SSL_CERT_FILE": "/gone"}
    for name, value in held.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with without_proxies():
        assert named_proxies() == {}
        assert "SSL_CERT_FILE" not in os.environ
        # What Windows and macOS have in their settings is looked at only where no variable says anything.
        assert os.environ["no_proxy"] == "*"
    assert dict(os.environ) == before


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]", "0.0.0.0", "::ffff:127.0.0.1"],
)
def test_this_machine_is_here(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize(
    "host", ["192.168.1.5", "localhost.evil.example", "::ffff:8.8.8.8", "example.org", "", "2001:db8::1"]
)
def test_others_are_not(host: str) -> None:
    assert not is_here(host)


def test_an_output_that_takes_nothing_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise OSError

    monkeypatch.setattr("sys.stdout", Broken())
    tell("the address")
