"""Errors of the client, with real sockets: no service, an error response, no response."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shortlist.http.api import RecommendRequest
from shortlist.http.client import ServiceError, ShortlistClient

ANSWERS = {
    "/refuses": (400, b'{"error": "k: want 1 to 500"}'),
    "/fails": (500, b"<html>proxy error</html>"),
    "/other": (200, b"<html>hello</html>"),
}
READY = b'{"release_id": "r", "pack_id": "p", "pack_as_of": 1, "clock": "wall"}'


class Handler(BaseHTTPRequestHandler):
    starting = 2

    def do_POST(self) -> None:
        case = self.path.removesuffix("/recommend")
        if case == "/silent":
            threading.Event().wait(1.0)
        status, body = ANSWERS.get(case, (200, b"{}"))
        self.answer(status, body)

    def do_GET(self) -> None:
        Handler.starting -= 1
        self.answer(*((500, b"") if Handler.starting >= 0 else (200, READY)))

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args) -> None:
        """Do nothing, so that requests aren't printed."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def error_of(url: str, *, timeout: float = 5.0) -> ServiceError:
    with ShortlistClient(url, timeout=timeout) as client, pytest.raises(ServiceError) as error:
        client.recommend(RecommendRequest(user_id="u1"))
    assert "\n" not in str(error.value)
    return error.value


def nobody() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_service_that_is_down_is_one_line_that_says_how_to_start_it():
    error = error_of(nobody())
    assert error.status is None
    assert "does not answer" in str(error)
    assert "shortlist serve" in str(error)


def test_a_refusal_carries_status_and_sentence(url):
    error = error_of(f"{url}/refuses")
    assert error.status == 400
    assert str(error).endswith("400: k: want 1 to 500")


def test_a_failure_without_a_sentence_shows_its_text(url):
    error = error_of(f"{url}/fails")
    assert error.status == 500
    assert "proxy error" in str(error)


def test_an_answer_of_another_service_is_named(url):
    assert "is not a RecommendResponse; is this another service?" in str(error_of(f"{url}/other"))


def test_silence_ends_at_the_timeout(url):
    error = error_of(f"{url}/silent", timeout=0.2)
    assert error.status is None
    assert "ReadTimeout" in str(error)


def test_waiting_ends_when_the_service_is_ready(url):
    with ShortlistClient(url) as client:
        assert client.wait_until_ready(timeout=20).release_id == "r"


def test_waiting_gives_up_in_one_line():
    with (
        ShortlistClient(nobody()) as client,
        pytest.raises(ServiceError, match=r"not ready after 1 s .*does not answer"),
    ):
        client.wait_until_ready(timeout=1)
