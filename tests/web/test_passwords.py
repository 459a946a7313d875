"""Passwords, guesses and logins, with a clock of the test's own."""

import hmac
import re

import pytest

from magistral_ui.web import passwords
from magistral_ui.web.passwords import MAX_PASSWORD_LENGTH, LoginSessions, Passwords, make_password


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_made_password_is_new_each_time_and_easy_to_read_out() -> None:
    made = {make_password() for _ in range(50)}
    assert len(made) == 50
    assert all(re.fullmatch(r"[a-hj-km-np-z2-9]{4}(-[a-hj-km-np-z2-9]{4}){3}", each) for each in made)


def test_name_and_password_belong_together() -> None:
    people = Passwords({"ann": "one password", "bob": "another one"})
    assert people.match("ann", "one password")
    assert not people.match("bob", "one password")
    assert not people.match("", "one password")
    assert not people.match("ann", "")
    assert not people.match("ann", "x" * 10_000_000)
    assert Passwords({"": "only"}).match("whoever", "only")


def test_a_password_is_compared_whole() -> None:
    longest = "x" * MAX_PASSWORD_LENGTH
    assert Passwords({"": longest}).match("", longest)
    assert not Passwords({"": longest}).match("", longest + "x")


def test_a_wrong_name_is_compared_like_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[int, int]] = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: (compared.append((len(a), len(b))), real(a, b))[1])
    people = Passwords({"ann": "one password"})
    people.match("ann", "wrong")
    people.match("nobody", "wrong")
    assert compared == [(32, 32), (32, 32)]


def test_a_login_ends_by_rest_by_age_and_by_its_owner() -> None:
    clock = Clock()
    logins = LoginSessions(idle_hours=1, hours=3, clock=clock)
    left, idle, old = (logins.begin(name) for name in ("left", "idle", "old"))
    logins.end(left)
    assert logins.find(left) is None
    for _ in range(3):
        clock.now += 3500
        found = logins.find(old)
        assert found
        assert found.name == "old"
    assert logins.find(idle) is None
    clock.now += 3500
    assert logins.find(old) is None
    assert logins.find("") is None
    assert logins.find("guessed" * 6) is None


@pytest.mark.parametrize(("name", "other"), [("ann", "bob"), ("", "")])
def test_nobody_ends_the_logins_of_others_by_coming_in_again_and_again(
    name: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all have one password: then an address is what counts."""
    monkeypatch.setattr(passwords, "MAX_LOGINS", 20)
    logins = LoginSessions(idle_hours=1, hours=3)
    mine = logins.begin(name, "192.0.2.1")
    theirs = [logins.begin(other, "192.0.2.2") for _ in range(100)]
    assert logins.find(mine)
    assert sum(bool(logins.find(secret)) for secret in theirs) == 19
    assert logins.find(theirs[-1]), "the latest stays"
