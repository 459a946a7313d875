"""What follows from the operator's choices: who may come in, under which limits, and what the terminal tells."""

import json
from pathlib import Path

import pytest

from magistral_ui.errors import BadSetting
from magistral_ui.i18n.texts import sentence
from magistral_ui.sessions.limits import SHARED, Limits
from magistral_ui.web.access import announcement, check_admins, limits_of, passwords_of
from magistral_ui.web.exposure import Exposure, exposure_of
from magistral_ui.web.passwords import Passwords


@pytest.mark.parametrize(
    ("host", "share", "environment", "reach"),
    [
        ("127.0.0.1", "no", {}, "local"),
        ("localhost", "no", {}, "local"),
        ("::1", "no", {}, "local"),
        ("127.8.8.8", "no", {}, "local"),
        ("0.0.0.0", "no", {}, "network"),
        ("192.168.1.5", "no", {}, "network"),
        ("::", "no", {}, "network"),
        ("127.0.0.1", "yes", {}, "tunnel"),
        ("127.0.0.1", "https://chat.example.org", {}, "proxy"),
        ("0.0.0.0", "no", {"SPACE_HOST": "me-it.hf.space"}, "space"),
    ],
)
def test_whoever_others_can_reach_is_shared(host: str, share: str, environment: dict[str, str], reach: str) -> None:
    exposure = exposure_of(host, share, environment)
    assert exposure.reach == reach
    assert exposure.shared == (reach != "local")
    assert limits_of(None, exposure) == (SHARED if exposure.shared else Limits())
    passwords, made = passwords_of(None, exposure, no_password=False)
    assert (passwords is not None) == bool(made) == (reach in ("network", "tunnel", "proxy"))


def test_no_password_is_said_aloud() -> None:
    passwords, made = passwords_of(None, Exposure("tunnel"), no_password=True)
    assert (passwords, made) == (None, "")
    assert "There is no password" in " ".join(announcement("u", Exposure("tunnel"), SHARED, None, ""))


def test_looser_limits_are_said_aloud(tmp_path: Path) -> None:
    exposure = Exposure("network")
    file = tmp_path / "limits.json"
    file.write_text(json.dumps({"replies": 4}))
    changed = limits_of(str(file), exposure)
    assert changed.replies == 4
    assert changed.text_length == SHARED.text_length
    assert changed.shared
    for limits, told in ((limits_of("local", exposure), "turned off"), (changed, "were changed")):
        assert told in " ".join(announcement("u", exposure, limits, None, "made"))
    assert len(announcement("u", exposure, SHARED, None, "made")) == 3


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"replies": "4"}', '{"replies": -1}', '{"replies": true}', '{"nope": 1}', '{"shared": 0}']
)
def test_limits_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "limits.json"
    file.write_text(text)
    with pytest.raises(BadSetting):
        limits_of(str(file), Exposure("network"))
    with pytest.raises(BadSetting):
        limits_of(str(tmp_path / "none.json"), Exposure("network"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1, column 1"),
        ("3", "are not a JSON object"),
        ("[" * 100_000, "are not a JSON object"),
        ('{"replies": 4,\n "pictures": 2,\n}', "line "),
        ('{"replies": "4"}', "“replies” takes a whole number from 0 to 1000000000"),
        ('{"replies": ' + "9" * 5_000 + "}", "“replies” takes a whole number"),
        ('{"unattended_seconds": 1000000001}', "“unattended_seconds” takes a whole number"),
        ('{"nope": 1}', "no limit “nope”"),
        ('{"replies": 1, "replies": 2}', "“replies” twice"),
    ],
)
def test_what_is_wrong_with_a_file_of_limits_is_said_in_words(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "limits.json"
    file.write_text(text)
    with pytest.raises(BadSetting) as refused:
        limits_of(str(file), Exposure("network"))
    assert str(file) in (said := sentence(refused.value.message))
    assert told in said
    assert not any(words in said for words in ("Expecting", "recursion", "digits"))


def test_who_may_come_in_is_asked_for_in_words_and_never_repeated(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# nobody yet\n")
    with pytest.raises(BadSetting) as refused:
        passwords_of(str(file), Exposure(), no_password=False)
    assert str(file) in sentence(refused.value.message)
    with pytest.raises(BadSetting) as refused:
        passwords_of("my-secret-alone", Exposure(), no_password=False)
    assert "no such file" in sentence(refused.value.message)
    assert "my-secret-alone" not in sentence(refused.value.message)


def test_people_come_from_the_flag_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "people"
    file.write_text("# ours\nann: a long password\n\nbob:with:colons in it\n")
    for choice, name, password in (
        ("me:a long password", "me", "a long password"),
        (str(file), "ann", "a long password"),
        (str(file), "bob", "with:colons in it"),
    ):
        passwords, made = passwords_of(choice, Exposure(), no_password=False)
        assert passwords
        assert passwords.match(name, password)
        assert made == ""


def test_a_page_for_others_takes_no_short_password_and_says_what_to_do() -> None:
    for reach in ("network", "tunnel", "proxy", "space"):
        with pytest.raises(BadSetting) as refused:
            passwords_of("ann:" + "x" * 11, Exposure(reach), no_password=False)  # type: ignore[arg-type]
        assert refused.value.message.values == {"name": "ann", "limit": 12}
        told = sentence(refused.value.message)
        assert "--auth" in told
        assert "12" in told
        passwords_of("ann:" + "x" * 12, Exposure(reach), no_password=False)  # type: ignore[arg-type]


def test_a_page_of_one_s_own_takes_it_and_warns() -> None:
    short, _ = passwords_of("ann:" + "x" * 11, Exposure(), no_password=False)
    long, _ = passwords_of("ann:" + "x" * 12, Exposure(), no_password=False)
    assert "fewer than 12 characters" in " ".join(announcement("u", Exposure(), Limits(), short, ""))
    assert announcement("u", Exposure(), Limits(), long, "") == announcement("u", Exposure(), Limits(), None, "")


@pytest.mark.parametrize(
    "choice", ["ann", "ann:short", ":a long password", "/no/such/file", "ann:" + "password" * 128 + "x"]
)
def test_people_that_are_none_are_refused_without_their_password(choice: str) -> None:
    with pytest.raises(BadSetting) as refused:
        passwords_of(choice, Exposure(), no_password=False)
    assert "password" not in str(refused.value.message.values)


def test_only_our_own_names_are_names() -> None:
    tunnel = exposure_of("127.0.0.1", "yes", {})
    tunnel.url = "https://abc.gradio.live"
    proxy = exposure_of("127.0.0.1", "https://chat.example.org/", {})
    network = exposure_of("0.0.0.0", "no", {})
    assert tunnel.has_name("abc.gradio.live")
    assert not tunnel.has_name("other.gradio.live")
    assert proxy.has_name("chat.example.org")
    assert network.has_name("192.168.1.5")
    for exposure in (tunnel, proxy, network):
        assert exposure.has_name("localhost")
        assert not exposure.has_name("evil.example")
        assert not exposure.has_name("localhost.evil.example")


def test_only_who_can_log_in_may_be_an_owner() -> None:
    people = Passwords({"Alice": "right horse", "bob": "left zebra"})
    for names in (None, "alice", " ALICE ,bob,"):
        check_admins(names, people)
    for names, stranger in (("alice,carol", "carol"), ("bobby", "bobby")):
        with pytest.raises(BadSetting) as refused:
            check_admins(names, people)
        assert refused.value.message.values["value"] == stranger
        assert "--auth" in sentence(refused.value.message)


@pytest.mark.parametrize("passwords", [None, Passwords({"": "one for everybody"})])
def test_without_names_nobody_is_an_owner(passwords: Passwords | None) -> None:
    check_admins(None, passwords)
    with pytest.raises(BadSetting):
        check_admins("alice", passwords)
