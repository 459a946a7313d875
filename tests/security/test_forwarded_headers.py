"""Who asks through a proxy is what the trusted ones wrote; whatever a visitor forged before that counts for nothing."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral_ui.client import CLIENT
from magistral_ui.ui import launch as serving_
from magistral_ui.ui.launch import learn_hops
from magistral_ui.web.client_address import FORWARDED_HEADERS, ClientAddressMiddleware, ForwardedHeadersMiddleware
from magistral_ui.web.exposure import NONE, ONE, TUNNEL, Exposure, address_in, exposure_of, read_trusted, seen_by
from tests.nginx import APPENDING, proxied, proxy_port
from tests.security.conftest import Served, serving

FORGED, VISITOR, PROXY = "8.8.8.8", "93.184.216.34", "127.0.0.1"
PUBLIC = {"Host": "chat.example.org"}
MALFORMED = [
    "",
    " ",
    "unknown",
    "_hidden",
    "_SEVKISEK:80",
    "localhost",
    "93.184.216",
    "93.184.216.034",
    "93.184.216.34.",
    "93.184.216.34:",
    "93.184.216.34:port",
    "93.184.216.34:123456",
    "93.184.216.34 8.8.8.8",
    "93.184.216.34;8.8.8.8",
    "93.184.216.34%eth0",
    '"93.184.216.34"',
    'for="[2001:db8::1]"',
    "[2001:db8::1",
    "2001:db8::1]",
    "[93.184.216.34]",
    "[]",
    "2001:db8:::1",
    "١٢٧.0.0.1",
    "0x5db8d822",
    "1572395042",
]


@pytest.mark.parametrize(
    ("hop", "address"),
    [
        ("93.184.216.34", "93.184.216.34"),
        ("\t 93.184.216.34 ", "93.184.216.34"),
        ("93.184.216.34:443", "93.184.216.34"),
        ("10.0.0.7", "10.0.0.7"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[fe80::1%25eth0]:1", "fe80::1"),
        ("::ffff:93.184.216.34", "93.184.216.34"),
        ("[::FFFF:93.184.216.34]:80", "93.184.216.34"),
        *((each, None) for each in MALFORMED),
    ],
)
def test_an_address_is_read_in_every_form_that_a_proxy_writes(hop: str, address: str | None) -> None:
    assert address_in(hop) == (address and address_in(address))
    assert str(address_in(hop)) == str(address)


TWO = read_trusted("2")
SEEN = seen_by(TUNNEL.peers, ["93.184.216.99", "172.31.5.4"])
LISTED = read_trusted("198.51.100.0/24, 2001:db8:1::/48, 10.0.0.5")


@pytest.mark.parametrize(
    ("proxies", "peer", "lines", "visitor"),
    [
        (NONE, PROXY, [FORGED], PROXY),
        (NONE, FORGED, [VISITOR], FORGED),
        # one proxy, which writes whom it saw
        (ONE, PROXY, [], PROXY),
        (ONE, PROXY, [VISITOR], VISITOR),
        (ONE, PROXY, [f"{FORGED}, {VISITOR}"], VISITOR),
        (ONE, PROXY, [FORGED, VISITOR], VISITOR),
        (ONE, PROXY, [f"{FORGED},10.0.0.7"], "10.0.0.7"),
        (ONE, PROXY, [f"{FORGED}, {VISITOR}:443"], VISITOR),
        (ONE, PROXY, [f"{FORGED}, [2001:db8::1]:443"], "2001:db8::1"),
        (ONE, PROXY, [f"{FORGED}, 127.0.0.1"], "127.0.0.1"),
        (ONE, PROXY, [", ".join([FORGED] * 1_500 + [VISITOR])], VISITOR),
        (ONE, PROXY, [VISITOR, ""], PROXY),
        (ONE, PROXY, [f"{VISITOR},"], PROXY),
        (ONE, "172.18.0.2", [f"{FORGED}, {VISITOR}"], VISITOR),
        (ONE, "::1", [VISITOR], VISITOR),
        (ONE, FORGED, [VISITOR], FORGED),  # no proxy of ours
        (ONE, "2001:db8::9", [VISITOR], "2001:db8::9"),
        (ONE, "", [VISITOR], ""),
        # two of them
        (TWO, PROXY, [f"{FORGED}, {VISITOR}, 203.0.113.7"], VISITOR),
        (TWO, PROXY, [f"{FORGED}, 10.1.1.1, 10.0.0.7"], "10.1.1.1"),
        (TWO, PROXY, ["203.0.113.7"], "203.0.113.7"),
        (TWO, PROXY, [f"{FORGED}, unknown, 203.0.113.7"], "203.0.113.7"),
        (TWO, PROXY, [f"{FORGED}, {VISITOR}, unknown"], PROXY),
        # by their addresses
        (LISTED, "198.51.100.9", [f"{FORGED}, {VISITOR}"], VISITOR),
        (LISTED, "10.0.0.5", [f"{FORGED}, {VISITOR}, 198.51.100.7:80"], VISITOR),
        (LISTED, "10.0.0.5", [f"{FORGED}, {VISITOR}, [2001:db8:1::5]"], VISITOR),
        (LISTED, PROXY, [f"{FORGED}, 10.0.0.6"], "10.0.0.6"),
        (LISTED, PROXY, [f"{FORGED}, _hidden, 198.51.100.7"], "198.51.100.7"),
        (LISTED, "10.0.0.6", [VISITOR], "10.0.0.6"),
        # Gradio's link, as it is known, and as it was seen
        (TUNNEL, PROXY, [f"{FORGED}, {VISITOR}"], VISITOR),
        (TUNNEL, PROXY, [f"{FORGED}, 10.0.0.7"], "10.0.0.7"),
        (TUNNEL, "192.168.1.7", [FORGED], "192.168.1.7"),  # not through the tunnel
        (SEEN, PROXY, [f"{FORGED}, {VISITOR}, 172.31.5.4"], VISITOR),
        (SEEN, PROXY, [f"{FORGED}, {VISITOR}:1, 172.31.9.9:2"], VISITOR),
        (SEEN, PROXY, [f"{FORGED}, {VISITOR}"], VISITOR),  # the inner one was reached alone
        (SEEN, PROXY, [f"{FORGED}, 10.0.0.1, 172.31.5.4"], "10.0.0.1"),
        (SEEN, PROXY, [f"{FORGED}, unknown, 172.31.5.4"], "172.31.5.4"),
    ],
)
def test_only_the_trusted_proxies_words_are_read(proxies: Any, peer: str, lines: list[str], visitor: str) -> None:
    assert proxies.visitor(peer, lines) == visitor


@pytest.mark.parametrize("proxies", [ONE, TWO, LISTED, TUNNEL, SEEN])
@pytest.mark.parametrize("last", MALFORMED)
def test_what_is_no_address_lets_nothing_before_it_count(proxies: Any, last: str) -> None:
    for lines in ([f"{FORGED}, {last}"], [FORGED, last], [f"{FORGED},{FORGED},{FORGED}", last]):
        assert proxies.visitor(PROXY, lines) == PROXY


def asked(exposure: Exposure, peer: str, *headers: tuple[str, str]) -> dict[str, Any]:
    """What lies further in is told of a request."""
    seen: dict[str, Any] = {}

    async def inside(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope, address=CLIENT.get().address)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": raw, "client": (peer, 1)}
    asyncio.run(
        ForwardedHeadersMiddleware(ClientAddressMiddleware(inside, exposure=exposure), exposure=exposure)(
            scope, None, None
        )
    )  # type: ignore[arg-type]
    return seen


OWN = Exposure("proxy", url="https://chat.example.org")


@pytest.mark.parametrize(
    "name", ["X-Real-IP", "Forwarded", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP", "X-Host"]
)
def test_no_other_header_says_who_asks(name: str) -> None:
    for exposure in (OWN, Exposure("tunnel"), Exposure("space"), Exposure("network"), Exposure()):
        found = asked(exposure, "127.0.0.1", (name, FORGED), (name, f"for={FORGED}"))
        assert found["address"] == "127.0.0.1"


@pytest.mark.parametrize("exposure", [Exposure(), Exposure("network", "0.0.0.0"), exposure_of("::", OWN.url, {}, "0")])
def test_without_a_proxy_nothing_is_believed(exposure: Exposure) -> None:
    for peer in ("127.0.0.1", "192.168.1.7", "93.184.216.34"):
        found = asked(exposure, peer, ("X-Forwarded-For", FORGED), ("X-Forwarded-Proto", "https"))
        assert (found["address"], found["scheme"]) == (peer, "http")


def test_nobody_further_in_sees_what_proxies_write() -> None:
    for exposure in (OWN, Exposure("network")):
        found = asked(exposure, "127.0.0.1", ("Host", "x"), *((name, FORGED) for name in FORWARDED_HEADERS))
        assert [name for name, _ in found["headers"]] == [b"host"]


@pytest.mark.parametrize(
    ("exposure", "headers", "scheme"),
    [
        (OWN, [("X-Forwarded-For", VISITOR)], "https"),
        (OWN, [("X-Forwarded-For", VISITOR), ("X-Forwarded-Proto", "http")], "https"),  # TLS ends before it
        (OWN, [("Host", "chat.example.org")], "https"),  # a proxy that writes nothing
        (OWN, [("Host", "localhost")], "http"),
        (Exposure("proxy", url="http://chat"), [("X-Forwarded-Proto", "HTTPS ")], "https"),
        (Exposure("proxy", url="http://chat"), [("X-Forwarded-Proto", "https, http")], "http"),
        (Exposure("proxy", url="http://chat"), [("X-Forwarded-Proto", "https"), ("X-Forwarded-Proto", "http")], "http"),
        (Exposure("proxy", url="http://chat"), [("X-Forwarded-Proto", "javascript")], "http"),
        (Exposure("tunnel"), [("X-Forwarded-For", VISITOR)], "https"),
        (Exposure("tunnel"), [("Host", "localhost")], "http"),
    ],
)
def test_how_was_asked_follows_from_the_nearest_proxy_and_the_address(
    exposure: Exposure, headers: list[tuple[str, str]], scheme: str
) -> None:
    assert asked(exposure, "127.0.0.1", *headers)["scheme"] == scheme
    assert asked(exposure, FORGED, *headers)["scheme"] == "http", "somebody who is no proxy"


def test_a_proxy_may_stand_before_an_address_of_the_network() -> None:
    exposure = exposure_of("0.0.0.0", "no", {}, "203.0.113.7")
    assert asked(exposure, "203.0.113.7", ("X-Forwarded-For", f"{FORGED}, {VISITOR}"))["address"] == VISITOR
    assert asked(exposure, "203.0.113.8", ("X-Forwarded-For", FORGED))["address"] == "203.0.113.8"
    assert not exposure.proxies.trusts("192.168.1.7")


def test_the_share_link_s_client_may_stand_at_the_address_that_is_listened_on() -> None:
    exposure = exposure_of("192.168.1.5", "yes", {})
    assert exposure.proxies.trusts("192.168.1.5")
    assert not exposure.proxies.trusts("192.168.1.6")


@pytest.mark.parametrize(
    ("hops", "count"),
    [([], 0), ([""], 0), (["unknown"], 0), ([VISITOR], 1), ([VISITOR, "10.0.0.1"], 2), ([VISITOR] * 17, 0)],
)
def test_what_was_seen_is_taken_where_it_can_be_told(hops: list[str], count: int) -> None:
    found = seen_by(TUNNEL.peers, hops)
    assert (found.count if found else 0) == count


def test_what_a_share_link_s_proxies_write_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real proxies stand for Gradio's: what ends TLS, and frps."""
    outer, inner, page = proxy_port(), proxy_port(), proxy_port()
    monkeypatch.setattr(serving_, "open_tunnel", lambda *_: f"http://127.0.0.1:{outer}")
    monkeypatch.setattr("tests.security.conftest.free_port", lambda: page)
    with (
        proxied(tmp_path / "inner", inner, page, "", strips=False, headers=APPENDING),
        proxied(tmp_path / "outer", outer, inner, "", strips=False, headers=APPENDING),
        serving(tmp_path, exposure=(link := Exposure("tunnel")), passwords={"": "right horse"}),
    ):
        assert link.named_proxies == seen_by(TUNNEL.peers + link.proxies.peers[2:], ["127.0.0.1", "127.0.0.1"])
        assert link.probe == "", "nobody can ask again"


def test_a_link_that_does_not_answer_leaves_what_is_known() -> None:
    link = Exposure("tunnel", url=f"http://127.0.0.1:{proxy_port()}")
    learn_hops(link)
    assert link.proxies.count == 1


def test_an_ipv6_visitor_is_a_network_of_64_bits() -> None:
    addresses = {
        asked(OWN, "::1", ("X-Forwarded-For", each))["address"]
        for each in ("2001:db8::1", "[2001:db8:0:0:ffff::2]:80", "2001:DB8::3%1", "2001:db8::4")
    }
    assert addresses == {"2001:db8::"}


@pytest.mark.parametrize(
    "last", ["10.0.0.{n}", "93.184.7.{n}:4{n}1", "[2001:db8:7:{n}::1]:443", "unknown", "_h{n}", ""]
)
def test_guesses_are_counted_whatever_is_forged_before(locked: Served, last: str) -> None:
    last = last.format(n=7)
    with httpx.Client(base_url=locked.url, trust_env=False, timeout=60) as client:
        found = []
        for number in range(7):
            forwarded = {"X-Forwarded-For": f"203.0.113.{number}, {last}".strip()}
            form = {"username": "", "password": f"wrong {number}"}
            found.append(client.post("/login", data=form, headers={**PUBLIC, **forwarded}).status_code)
    assert found[-1] == 429, found


def test_two_real_proxies_in_a_row(tmp_path: Path) -> None:
    """The outer one hands on whatever a visitor forged, as nginx does; each writes behind it whom it saw."""
    outer, inner = proxy_port(), proxy_port()
    exposure = exposure_of("127.0.0.1", f"http://127.0.0.1:{outer}/ai", {}, "2")
    limits_hold = []
    with (
        serving(tmp_path, exposure=exposure, passwords={"": "right horse"}) as served,
        proxied(tmp_path / "inner", inner, served.port, "/ai", strips=False, headers=APPENDING),
        proxied(tmp_path / "outer", outer, inner, "/ai", strips=False, headers=APPENDING) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=60) as client,
    ):
        for number in range(7):
            forged = {"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}"}
            limits_hold.append(client.post("login", data={"password": "wrong"}, headers=forged).status_code)
        assert limits_hold == [401] * 5 + [429] * 2
        with httpx.Client(base_url=served.url, trust_env=False, timeout=60) as beside:
            told = {"X-Forwarded-For": "203.0.113.99, 203.0.113.98, 127.0.0.1"}
            assert beside.post("/login", data={"password": "wrong"}, headers=told).status_code == 401


@pytest.mark.parametrize(
    "value", ["-1", "17", "1.5", "x", "", ",", "10.0.0.1,", "10.0.0.5/8", "0.0.0.0/0", "::/0", "10.0.0.0/33", "²"]
)
def test_what_names_no_proxies_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^"):
        read_trusted(value)


def test_proxies_are_named_by_number_or_by_address() -> None:
    assert read_trusted("0") == NONE
    assert read_trusted(" 1 ") == ONE
    assert read_trusted("16").count == 16
    named = read_trusted("10.0.0.5, [2001:db8::1], 2001:db8:1::/48")
    assert [named.trusts(each) for each in ("10.0.0.5", "10.0.0.6", "2001:db8::1", "2001:db8:1:9::1", "::1")] == [
        True,
        False,
        True,
        True,
        True,
    ]
