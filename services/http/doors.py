"""Who may send requests, how large, and how many: API keys, limits, load shedding, headers.

SHORTLIST_API_KEYS holds the keys: "read:KEY,read+events:KEY,admin:KEY". A client sends its key as
`Authorization: Bearer KEY` or `X-API-Key: KEY`. Without keys only clients of this machine are
served. Keys are never logged.

| refused with | because |
|---|---|
| 401 | no key or a wrong one |
| 403 | the key lacks the scope, or without keys: the client is on another machine |
| 413 | the body is larger than SHORTLIST_MAX_BODY_KB |
| 429 | the client sends more than SHORTLIST_RATE_LIMIT requests per second |
| 503 | the worker handles SHORTLIST_MAX_IN_FLIGHT requests, or is SHORTLIST_MAX_LAG_MS behind |
"""

import asyncio
import hmac
import ipaddress
import os
import time
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shortlist.config import ConfigError, Settings

VARIABLE = "SHORTLIST_API_KEYS"
SCOPES = ("read", "events", "admin")
OPEN_PATHS = ("/livez", "/readyz", "/healthz")
"""Health checks; they need no key and are never shed."""
SCOPE_OF = {"/events": "events", "/items": "admin", "/users": "admin"}
"""First part of a path -> scope that it needs; all others need `read`. A key with `admin` has all
scopes."""
CONSOLE = "/console"
"""The pages under this path need the scope `admin`. A browser sends the key as the password of HTTP
Basic authentication."""
MIN_LENGTH = 16
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Headers of every response. There are none for CORS, so pages of other sites can't read."""
PROBE_SECONDS = 0.05
MAX_CLIENTS = 10_000


class ApiKeys:
    """The keys of all clients with their scopes, as hashes."""

    def __init__(self, keys: dict[bytes, frozenset[str]]):
        self._keys = keys

    @classmethod
    def from_environment(cls) -> "ApiKeys":
        """Read SHORTLIST_API_KEYS.

        Raises:
            ConfigError: the variable is malformed. The message doesn't contain a key.
        """
        keys: dict[bytes, frozenset[str]] = {}
        entries = [one for one in os.environ.get(VARIABLE, "").split(",") if one.strip()]
        for number, entry in enumerate(entries, start=1):
            names, _, key = entry.strip().partition(":")
            scopes = frozenset(names.split("+"))
            if not key or not scopes <= set(SCOPES):
                raise ConfigError(
                    f"{VARIABLE}: entry {number} is not SCOPE:KEY, with scopes of"
                    f" {', '.join(SCOPES)} joined by +, such as read+events:KEY"
                )
            if len(key) < MIN_LENGTH:
                raise ConfigError(
                    f"{VARIABLE}: the key of entry {number} has {len(key)} characters, want"
                    f" {MIN_LENGTH} or more; `openssl rand -hex 24` makes one"
                )
            keys[_hash(key)] = scopes
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def scopes_of(self, key: str) -> frozenset[str]:
        """Return the scopes of a key; empty if it is wrong. The time doesn't depend on the key."""
        wanted, found = _hash(key), frozenset[str]()
        for known, scopes in self._keys.items():
            if hmac.compare_digest(known, wanted):
                found = scopes
        return found


@dataclass(frozen=True)
class Refusal:
    """A status and its sentence; `retry` adds the header Retry-After."""

    status: int
    error: str
    retry: bool = False
    asks: str = "Bearer"
    """How to send a key; value of the header WWW-Authenticate of a 401."""

    def response(self) -> JSONResponse:
        headers = {"retry-after": "1"} if self.retry else {}
        if self.status == 401:
            headers["www-authenticate"] = self.asks
        return JSONResponse({"error": self.error}, status_code=self.status, headers=headers)


class Doors:
    """ASGI middleware that refuses requests before any work is done for them."""

    def __init__(self, app: ASGIApp, settings: Settings | None = None, keys: ApiKeys | None = None):
        self.app = app
        self.settings = settings or Settings()
        self.keys = ApiKeys.from_environment() if keys is None else keys
        self.in_flight = 0
        self.lag = LoopLag()
        self.rates = Rates(self.settings.rate_limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, with_headers)
            return
        self.lag.watch()
        refused = self.check_client(scope) or self.check_load(scope)
        if refused is None:
            receive, refused = await self.limited(scope, receive)
        if refused is not None:
            await refused.response()(scope, receive, with_headers)
            return
        self.in_flight += 1
        try:
            await self.app(scope, receive, with_headers)
        finally:
            self.in_flight -= 1

    def check_client(self, scope: Scope) -> Refusal | None:
        """Check the key and its scope; without keys, that the client is on this machine."""
        headers, console = Headers(scope=scope), is_console(scope["path"])
        if not self.keys:
            local = _is_local(scope) and _is_local_origin(headers.get("origin"))
            # A page of another site may have a name that resolves to this machine (DNS rebinding).
            if local and (not console or _is_local_origin(f"http://{headers.get('host', '')}")):
                return None
            return Refusal(
                403,
                f"only clients of this machine are served: set {VARIABLE} to serve others"
                " (docs/security.md)",
            )
        scopes = self.keys.scopes_of(_key_in(headers, basic=console))
        if not scopes and console:
            realm = 'Basic realm="Shortlist: any name, a key with scope admin as password"'
            return Refusal(401, "no valid API key: send it as the password", asks=realm)
        if not scopes:
            return Refusal(401, "no valid API key: send it as `Authorization: Bearer KEY`")
        first = "/" + scope["path"].split("/")[1]
        wanted = "admin" if console else SCOPE_OF.get(first, "read")
        if wanted not in scopes and "admin" not in scopes:
            return Refusal(403, f"the API key has no scope '{wanted}' for {scope['path']}")
        return None

    def check_load(self, scope: Scope) -> Refusal | None:
        """Check the client's rate and the worker's load."""
        if not self.rates.allow(_client_of(scope)):
            limit = self.settings.rate_limit
            return Refusal(429, f"more than {limit:g} requests per second; retry later", retry=True)
        if self.in_flight >= self.settings.max_in_flight:
            return Refusal(
                503, f"the service handles {self.in_flight} requests; retry later", retry=True
            )
        behind = self.lag.seconds
        if behind * 1e3 > self.settings.max_lag_ms:
            return Refusal(503, f"the service is {behind:.1f} s behind; retry later", retry=True)
        return None

    async def limited(self, scope: Scope, receive: Receive) -> tuple[Receive, Refusal | None]:
        """Check the size of the body; return the function that reads it.

        A body without a length in the header is read here, up to the limit.
        """
        limit = self.settings.max_body_kb * 1000
        too_large = Refusal(
            413, f"the body is larger than {self.settings.max_body_kb} kB; send it in parts"
        )
        length = Headers(scope=scope).get("content-length")
        if length is not None:
            wrong = not length.isdecimal() or int(length) > limit
            return receive, too_large if wrong else None
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > limit:
                return receive, too_large
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return again, None


class LoopLag:
    """How late the event loop is. Requests that wait for it aren't counted anywhere else."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._task: asyncio.Task[None] | None = None

    def watch(self) -> None:
        """Start measuring in the running loop, once."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._measure())

    async def _measure(self) -> None:
        while True:
            started = time.monotonic()
            await asyncio.sleep(PROBE_SECONDS)
            self.seconds = max(0.0, time.monotonic() - started - PROBE_SECONDS)


class Rates:
    """Token buckets: each client may send `limit` requests per second, with bursts of a second."""

    def __init__(self, limit: float | None):
        self.limit = limit
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, client: str) -> bool:
        """Take a token of a client; return False if it has none."""
        if self.limit is None:
            return True
        now, most = time.monotonic(), max(1.0, self.limit)
        tokens, at = self._buckets.pop(client, (most, now))
        tokens = min(most, tokens + (now - at) * self.limit)
        self._buckets[client] = (max(0.0, tokens - 1), now) if tokens >= 1 else (tokens, now)
        while len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return tokens >= 1


def _hash(key: str) -> bytes:
    return sha256(key.encode()).digest()


def is_console(path: str) -> bool:
    return path == CONSOLE or path.startswith(f"{CONSOLE}/")


def _key_in(headers: Headers, *, basic: bool = False) -> str:
    """Return the key of a request, empty if it has none.

    Args:
        basic: whether it may be the password of Basic authentication. Browsers add that to requests
            from pages of other sites too, so only paths that check the origin allow it.
    """
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if basic and scheme.lower() == "basic":
        try:
            return b64decode(key.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _client_of(scope: Scope) -> str:
    """Return a client's name for its rate: a hash of its key, or its address."""
    key = _key_in(Headers(scope=scope), basic=is_console(scope["path"]))
    return _hash(key).hex() if key else (scope.get("client") or ("local", 0))[0]


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    if client is None:  # a Unix socket
        return True
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        return client[0] in ("localhost", "testclient")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _is_local_origin(origin: str | None) -> bool:
    """Return whether a request comes from no web page, or from one of this machine."""
    if origin is None:
        return True
    return urlsplit(origin).hostname in ("localhost", "127.0.0.1", "::1")
