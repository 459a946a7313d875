"""Attacks with requests as such: bodies that cost too much, what means two things at once, floods, foreign websites."""

import secrets

from tests.soak.attacks.attack import Stranger, attack, status_on

ACTION = "/magistral/act/composer/say"
JSON = {"Content-Type": "application/json"}
HEAVY = [
    "[0]," * 330_000 + "0",
    "[]," * 330_000 + "0",
    '{"":0},' * 200_000 + "0",
    "0," * 600_000 + "0",
    '"",' * 400_000 + '""',
    "[" * 100_000 + "]" * 100_000,
]


@attack("bodies that take long to parse", per_minute=120, at_once=10, reaches=["400"], may=["413", "429"])
def heavy_bodies(stranger: Stranger) -> str:
    body = f'{{"data": [{secrets.choice(HEAVY)}]}}'
    return str(stranger.post(ACTION, content=body, headers=JSON).status_code)


FORGED = [
    "[]",
    "null",
    "{",
    '{"data": {"a": NaN}}',
    '{"data": {"a": 1e999}}',
    '{"data": {"a": "\\ud800"}}',
    '{"data": {}, "extra": 1}',
    '{"data": {}, "data": {"a": 1}}',
    '{"message": {"text": ["hi"]}}',
]


@attack("JSON that the page never sends", per_minute=120, reaches=["400"], may=["404", "429"])
def forged(stranger: Stranger) -> str:
    return str(stranger.post(ACTION, content=secrets.choice(FORGED), headers=JSON).status_code)


@attack("a name that stands twice in the query", per_minute=60, reaches=["400"], may=["429"])
def doubles(stranger: Stranger) -> str:
    own, other = stranger.door.tab, secrets.token_hex(6)
    query = secrets.choice([f"session_hash={own}&session_hash={other}", f"session_hash={own}&%73ession_hash={other}"])
    return str(stranger.door.http.get(f"/gradio_api/queue/data?{query}").status_code)


@attack("a header that stands twice", per_minute=60, reaches=["400", "421"], may=["429"])
def double_headers(stranger: Stranger) -> str:
    name = secrets.choice(["Host", "Origin", "Content-Type", "Authorization", "Mcp-Session-Id", "X-Ticket"])
    line = stranger.line()
    head = stranger.head("GET /config", **({} if name == "Host" else {name: "x"}))
    line.sendall(head[:-2] + f"{name}: x\r\n\r\n".encode())
    return status_on(line)


@attack("a foreign name", per_minute=60, reaches=["400", "421"], may=["429"])
def foreign_host(stranger: Stranger) -> str:
    host = secrets.choice(["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "a b"])
    return str(stranger.outside.get("/config", headers={**stranger.headers(), "Host": host}).status_code)


@attack("a foreign website", per_minute=60, reaches=["403"], may=["429"])
def foreign_origin(stranger: Stranger) -> str:
    said = secrets.choice([{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}])
    return str(stranger.post(ACTION, json={"data": []}, headers=said).status_code)


WHOLE = 1_000_000
"""Bytes of one such file and a bit; who reads them gets four."""
NOWHERE = [
    "/openapi.json",
    "/monitoring",
    "/gradio_api/deep_link",
    "/static/../app.py",
    "/magistral/login.html",
    "/docs",
]


@attack("addresses that there are not", per_minute=240, reaches=["404"], may=["400", "429"])
def nowhere(stranger: Stranger) -> str:
    return str(stranger.door.http.get(secrets.choice(NOWHERE)).status_code)


@attack("a flood from one address", per_minute=3_000, at_once=4, reaches=["200"], may=["429", "503"])
def flood(stranger: Stranger) -> str:
    return str(stranger.outside.get("/gradio_api/startup-events").status_code)


@attack("answers that nobody reads", per_minute=60, reaches=["dropped", "waits"], may=["429"])
def unread(stranger: Stranger) -> str:
    """Keeps 40 connections on which a large file was asked for, again and again; the oldest has to be given up by then."""
    line = stranger.line(received_bytes=4_096)
    line.sendall(stranger.head("GET /magistral/vendor/renderers.js") * 4)
    stranger.lines.append(line)
    if len(stranger.lines) <= 40:
        return "waits"
    got = 0
    with stranger.lines.pop(0) as oldest:
        try:
            while piece := oldest.recv(65_536):
                got += len(piece)
        except ConnectionResetError:
            return "dropped"
    return "dropped" if got < WHOLE else "taken"


@attack("ever new visitors", per_minute=240, reaches=["new"], may=["429", "500"])
def newcomers(stranger: Stranger) -> str:
    stranger.door.place = {}
    stranger.door.act("turns/new_chat")
    return "new"


@attack("sockets for what speaks no WebSocket", per_minute=30, reaches=["403", "404"], may=["400", "429"])
def websockets(stranger: Stranger) -> str:
    line = stranger.line()
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "a" * 22 + "=="}
    line.sendall(stranger.head("GET /queue/join", **upgrade, **{"Sec-WebSocket-Version": "13"}))
    return status_on(line)
