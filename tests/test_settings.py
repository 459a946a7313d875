"""Flags win over variables, variables over defaults; what is impossible is named, and README tells the truth."""

import re
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from magistral_ui import __version__
from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import sentence, strings
from magistral_ui.settings import FLAGS, Settings, read_settings

README = Path(__file__).parents[1] / "README.md"


def test_without_anything_the_defaults_hold() -> None:
    settings = read_settings([], {})
    assert settings == Settings()
    assert settings.host == "127.0.0.1", "nobody else's machine may reach the page unasked"
    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_each_setting_has_one_flag_and_there_are_not_too_many() -> None:
    assert [flag.name for flag in FLAGS] == [field.name for field in fields(Settings)]
    assert len(FLAGS) <= 23


def test_flags_win_over_variables() -> None:
    environment = {"MAGISTRAL_UI_PORT": "8000", "MAGISTRAL_UI_DEVICE": "cpu", "MAGISTRAL_UI_MODEL": "", "PORT": "1"}
    settings = read_settings(["--port", "9000", "--context", "4096"], environment)
    assert settings == Settings(port=9000, device="cpu", context=4096)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "0"),
        ("port", "65536"),
        ("port", "http"),
        ("port", "-1"),
        ("port", "7860.0"),
        ("device", "tpu"),
        ("precision", "int4"),
        ("precision", "Q9_X"),
        ("kv_type", "q4_0"),
        ("context", "1"),
        ("threads", "0"),
        ("model", " "),
        ("admin", " , "),
        ("host", ""),
        ("plan", "maybe"),
    ],
)
def test_an_impossible_value_is_refused_with_its_name(name: str, value: str) -> None:
    with pytest.raises(BadSetting) as refused:
        read_settings([f"--{name.replace('_', '-')}={value}"], {})
    assert refused.value.message.values["name"] == f"--{name.replace('_', '-')}"
    assert refused.value.message.values["value"] == value
    if value:
        with pytest.raises(BadSetting) as refused:
            read_settings([], {f"MAGISTRAL_UI_{name.upper()}": value})
        assert refused.value.message.values["name"] == f"MAGISTRAL_UI_{name.upper()}"


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--threads", "0", "1..1024"),
        ("--keep-days", "-1", "0..36500"),
        ("--context", "many", "256..1048576"),
        ("--idle-minutes", "-1", "0..10080"),
        ("--idle-minutes", "1.5", "0..10080"),
        ("--share", "https://chat example.org", "URL"),
        ("--trusted-proxies", "17", "0 to 16"),
        ("--trusted-proxies", "10.0.0.1/8", "10.0.0.0/8"),
    ],
)
def test_the_refusal_says_what_is_possible(flag: str, value: str, told: str) -> None:
    with pytest.raises(BadSetting) as refused:
        read_settings([f"{flag}={value}"], {})
    assert told in sentence(refused.value.message)


@pytest.mark.parametrize(
    ("typed", "host"),
    [("0", "0.0.0.0"), ("0.0", "0.0.0.0"), ("0x0", "0.0.0.0"), ("127.1", "127.0.0.1"), ("2130706433", "127.0.0.1")],
)
def test_an_old_spelling_of_an_address_is_that_address(typed: str, host: str) -> None:
    assert read_settings(["--host", typed], {}).host == host


@pytest.mark.parametrize("name", ["0xhost", "99999999999999", "1.2.3.4.5", "bad"])
def test_a_name_of_digits_stays_a_name(name: str) -> None:
    assert read_settings(["--host", name], {}).host == name


@pytest.mark.parametrize("arguments", [["--nope"], ["--port"], ["extra"], ["--mod", "demo"]])
def test_an_unknown_or_unfinished_flag_is_refused(arguments: list[str]) -> None:
    with pytest.raises(BadSetting) as refused:
        read_settings(arguments, {})
    assert refused.value.message.key == "bad_flag"


def test_help_tells_of_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--help"], {})
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(f"{flag.option} " in told and f"flag_{flag.name}" in strings() for flag in FLAGS)


def test_a_switch_needs_no_value() -> None:
    assert not read_settings([], {}).plan
    assert read_settings(["--plan"], {}).plan
    assert read_settings([], {"MAGISTRAL_UI_PLAN": "yes"}).plan
    assert not read_settings(["--plan", "no"], {"MAGISTRAL_UI_PLAN": "yes"}).plan


def test_a_name_of_two_words_is_typed_with_a_dash() -> None:
    wanted = Settings(save_quantized="/copy")
    assert read_settings(["--save-quantized", "/copy"], {}) == wanted
    assert read_settings([], {"MAGISTRAL_UI_SAVE_QUANTIZED": "/copy"}) == wanted


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings(["--version"], {})
    assert capsys.readouterr().out.strip() == __version__


def test_the_readme_s_table_has_each_flag_with_its_variable_and_default() -> None:
    table = README.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(--[\w-]+)[^`]*` \| `(\w+)` \| (.*?) \|", table, re.MULTILINE)
    defaults = Settings()
    wanted = [(flag.option, flag.variable, getattr(defaults, flag.name)) for flag in FLAGS]
    assert [(name, variable) for name, variable, _ in rows] == [(name, variable) for name, variable, _ in wanted]
    for (name, _, told), (_, _, default) in zip(rows, wanted, strict=True):
        assert default is None or told == ("no" if default is False else f"`{default}`"), name


def test_a_quantization_is_a_precision_also_in_lower_case() -> None:
    assert read_settings(["--precision", "Q4_K_M"], {}).precision == "Q4_K_M"
    assert read_settings([], {"MAGISTRAL_UI_PRECISION": "q8_0"}).precision == "Q8_0"
    with pytest.raises(BadSetting):
        read_settings(["--precision", "NF4"], {})


def test_a_space_says_where_to_listen() -> None:
    space = {"SPACE_ID": "someone/magistral", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_SERVER_PORT": "7861"}
    assert read_settings([], space) == Settings(host="0.0.0.0", port=7861)
    assert read_settings([], {"SPACE_ID": "someone/magistral"}).host == "0.0.0.0"
    assert read_settings(["--port", "80"], {**space, "MAGISTRAL_UI_HOST": "::"}) == Settings(host="::", port=80)
    elsewhere = {name: value for name, value in space.items() if name != "SPACE_ID"}
    assert read_settings([], elsewhere) == Settings(), "Gradio's own variables mean nothing elsewhere"
    with pytest.raises(BadSetting) as refused:
        read_settings([], {**space, "GRADIO_SERVER_PORT": "many"})
    assert refused.value.message.values["name"] == "GRADIO_SERVER_PORT"


def test_a_path_may_begin_at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    names = ("model", "save_quantized", "data_dir", "auth", "limits")
    for name in names:
        option, variable = f"--{name.replace('_', '-')}", f"MAGISTRAL_UI_{name.upper()}"
        for read in (read_settings([option, "~/x y"], {}), read_settings([], {variable: "~/x y"})):
            assert getattr(read, name) == f"{tmp_path}/x y"
    assert read_settings(["--data-dir", "~"], {}).data_dir == str(tmp_path)
    assert read_settings(["--auth", "~ann:a long password"], {}).auth == "~ann:a long password"
    assert read_settings(["--data-dir", "a/~/b"], {}).data_dir == "a/~/b"
    for name in ("model", "save_quantized", "data_dir", "limits"):
        for value in ("~nobody-has-this-name/x", "~nobody-has-this-name"):
            with pytest.raises(BadSetting):
                read_settings([f"--{name.replace('_', '-')}", value], {})
    root = read_settings(["--data-dir", "~root/x"], {}).data_dir
    assert root is not None
    assert root.startswith("/"), "another user's home"


def test_blanks_around_a_value_are_none_of_it() -> None:
    environment = {"MAGISTRAL_UI_HOST": " ::1 ", "MAGISTRAL_UI_DEVICE": "cpu\n", "MAGISTRAL_UI_SHARE": " no "}
    assert read_settings(["--port", " 80 "], environment) == Settings(host="::1", device="cpu", port=80)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("[::1]", "::1"),
        ("[::]", "::"),
        ("0:0:0:0:0:0:0:0", "::"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("[fe80::1%eth0]", "fe80::1%eth0"),
        ("[x]", "[x]"),
    ],
)
def test_an_address_may_be_spelled_in_many_ways(written: str, read: str) -> None:
    assert read_settings(["--host", written], {}).host == read


@pytest.mark.parametrize("url", ["https://chat.example.org", "https://chat.example.org/ai", "http://h:8080/a/b-c/"])
def test_a_page_may_be_shared_below_a_path(url: str) -> None:
    assert read_settings(["--share", url], {}).share == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "https://h//evil.example",
        "https://h/../x",
        "https://h/a?b",
        "https://h/a#b",
        "https://h/a b",
        "https://h/a\r\nX: y",
        "https://h/%2e",
        "https://h/ä",
        "https://me:secret@h/",
        "https://h:99999/",
        "ftp://h/",
    ],
)
def test_a_path_that_could_lead_elsewhere_is_none(url: str) -> None:
    with pytest.raises(BadSetting):
        read_settings(["--share", url], {})
