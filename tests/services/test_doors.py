"""API keys, limits, load shedding and headers of the service, on a small app behind the doors."""

import asyncio
import logging
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.http.doors import HEADERS, ApiKeys, Doors
from shortlist.config import ConfigError, Settings

READ, EVENTS, ADMIN = "r" * 24, "e" * 24, "a" * 24
KEYS = f"read:{READ}, events:{EVENTS},admin:{ADMIN}"


async def echo(request: Request) -> Response:
    return JSONResponse({"length": len(await request.body())})


async def slow(request: Request) -> Response:
    await asyncio.sleep(0.2)
    return Response("done")


def doors(monkeypatch: pytest.MonkeyPatch, keys: str = "", **settings: Any) -> Doors:
    monkeypatch.setenv("SHORTLIST_API_KEYS", keys)
    paths = ("/recommend", "/events", "/items", "/readyz")
    routes = [Route(path, echo, methods=["GET", "POST"]) for path in paths]
    app = Starlette(routes=[*routes, Route("/slow", slow, methods=["GET"])])
    return Doors(app, Settings(**settings))


async def ask(app: Doors, path: str, *, client: str = "127.0.0.1", **parameters: Any) -> Any:
    transport = httpx.ASGITransport(app=app, client=(client, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        return await http.post(path, **parameters)


def status(app: Doors, path: str, **parameters: Any) -> int:
    return asyncio.run(ask(app, path, **parameters)).status_code


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        (READ, {"/recommend"}),
        (EVENTS, {"/events"}),
        (ADMIN, {"/recommend", "/events", "/items"}),
    ],
)
def test_a_key_opens_the_paths_of_its_scope(
    monkeypatch: pytest.MonkeyPatch, key: str, allowed: set[str]
) -> None:
    app = doors(monkeypatch, KEYS)
    for path in ("/recommend", "/events", "/items"):
        for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
            found = status(app, path, headers=headers, client="10.0.0.9")
            assert found == (200 if path in allowed else 403)


def test_without_or_with_a_wrong_key_only_health_checks_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = doors(monkeypatch, KEYS)
    with caplog.at_level(logging.DEBUG):
        for key in ("", "wrong", READ[:-1], READ + "r", "é" * 24):
            headers = {"authorization": f"Bearer {key}".encode()}
            answer = asyncio.run(ask(app, "/recommend", headers=headers))
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert key == "" or key not in answer.text
        assert status(app, "/readyz") == 200
    assert READ[:-1] not in caplog.text


def test_without_keys_only_this_machine_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    app = doors(monkeypatch)
    for client in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert status(app, "/recommend", client=client) == 200
    for client in ("10.0.0.9", "2001:db8::1", "::ffff:10.0.0.9"):
        assert status(app, "/recommend", client=client) == 403
    assert status(app, "/recommend", headers={"origin": "http://localhost:3000"}) == 200
    for origin in ("https://example.org", "null"):
        assert status(app, "/recommend", headers={"origin": origin}) == 403


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (READ, "entry 1 is not SCOPE:KEY"),
        (f"read:{READ},write:{EVENTS}", "entry 2 is not SCOPE:KEY"),
        ("read:short", "the key of entry 1 has 5 characters, want 16 or more"),
    ],
)
def test_malformed_keys_are_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, keys: str, message: str
) -> None:
    monkeypatch.setenv("SHORTLIST_API_KEYS", keys)
    with pytest.raises(ConfigError, match=message) as error:
        ApiKeys.from_environment()
    assert READ not in str(error.value)
    assert "short" not in str(error.value)


def test_a_body_over_the_limit_is_refused_also_without_a_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = doors(monkeypatch, max_body_kb=1)

    async def chunks(size: int) -> Any:
        for _ in range(size // 100):
            yield b"x" * 100

    assert asyncio.run(ask(app, "/events", content=b"x" * 1_000)).json() == {"length": 1_000}
    assert asyncio.run(ask(app, "/events", content=chunks(1_000))).json() == {"length": 1_000}
    for content in (b"x" * 1_001, chunks(1_100)):
        answer = asyncio.run(ask(app, "/events", content=content))
        assert answer.status_code == 413
        assert answer.json()["error"] == "the body is larger than 1 kB; send it in parts"


def test_too_many_requests_at_once_are_shed(monkeypatch: pytest.MonkeyPatch) -> None:
    app = doors(monkeypatch, max_in_flight=2)

    async def burst() -> list[Any]:
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
            return await asyncio.gather(*(http.get("/slow") for _ in range(5)))

    answers = asyncio.run(burst())
    assert sorted(one.status_code for one in answers) == [200, 200, 503, 503, 503]
    assert {one.headers.get("retry-after") for one in answers if one.status_code == 503} == {"1"}
    assert app.in_flight == 0


def test_a_worker_that_is_behind_sheds_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    app = doors(monkeypatch, max_lag_ms=1_000)
    app.lag.watch = lambda: None  # keep the measured lag
    app.lag.seconds = 1.5
    answer = asyncio.run(ask(app, "/recommend"))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert status(app, "/readyz") == 200
    app.lag.seconds = 0.5
    assert status(app, "/recommend") == 200


def test_one_client_over_its_rate_gets_429_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = doors(monkeypatch, KEYS, rate_limit=0.001)
    mine, other = {"x-api-key": READ}, {"x-api-key": ADMIN}
    assert status(app, "/recommend", headers=mine) == 200
    answer = asyncio.run(ask(app, "/recommend", headers=mine))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert status(app, "/recommend", headers=other) == 200


def test_every_answer_has_security_headers_and_none_for_cors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = doors(monkeypatch)
    for client in ("127.0.0.1", "10.0.0.9"):
        answer = asyncio.run(ask(app, "/recommend", client=client))
        assert HEADERS.items() <= dict(answer.headers).items()
        assert not [name for name in answer.headers if name.startswith("access-control")]


CONSOLE_PATHS = ("/console", "/console/person", "/console/static/console.css")


def get(app: Doors, path: str, *, host: str = "service", **parameters: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        client = parameters.pop("client", "127.0.0.1")
        transport = httpx.ASGITransport(app=app, client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as http:
            return await http.get(path, **parameters)

    return asyncio.run(ask())


@pytest.mark.parametrize("path", CONSOLE_PATHS)
def test_the_console_needs_an_admin_key_as_password(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    app = doors(monkeypatch, KEYS)
    answer = get(app, path, client="10.0.0.9")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Basic realm=")
    for key, expected in ((READ, 403), (EVENTS, 403), (ADMIN, 404), ("wrong", 401)):
        assert get(app, path, auth=("me", key), client="10.0.0.9").status_code == expected
    assert get(app, path, headers={"authorization": "Basic !"}).status_code == 401
    assert get(app, path, headers={"x-api-key": ADMIN}).status_code == 404
    # 404: the small app behind the doors has no console


def test_a_password_opens_only_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    app = doors(monkeypatch, KEYS)
    for path in ("/recommend", "/events", "/items", "/consoles"):
        assert status(app, path, auth=("me", ADMIN)) == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost:3000", 404), ("127.0.0.1", 404), ("[::1]:3000", 404), ("evil.example", 403)],
)
def test_without_keys_the_console_is_only_shown_under_local_names(
    monkeypatch: pytest.MonkeyPatch, host: str, expected: int
) -> None:
    app = doors(monkeypatch)
    assert get(app, "/console", host=host).status_code == expected
    assert get(app, "/console", host=host, client="10.0.0.9").status_code == 403
