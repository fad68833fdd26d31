"""A server of this machine whose answers a test writes itself."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def serve(
    pages: Mapping[str, Callable[[BaseHTTPRequestHandler], None]], encryption: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The server's address. `pages`: path -> a function that writes the answer; any other path is a 404."""
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        is_over = stopped.wait  # waits some seconds; True once the test is over

        def do_GET(self) -> None:
            page = pages.get(self.path)
            if page is None:
                self.send_error(404)
            else:
                page(self)

        def log_message(self, *args: object) -> None:
            """Nothing: the terminal is the test's."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: object) -> None:
            """Nothing: clients go away on purpose."""

    with Server(("127.0.0.1", 0), Handler) as server:
        if encryption is not None:
            server.socket = encryption.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            stopped.set()
            server.shutdown()


def content(data: bytes, declared: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer with this content; `declared` is a wrong length of it, -1 none."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if declared != -1:
            request.send_header("Content-Length", str(len(data) if declared is None else declared))
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirect(target: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.end_headers()

    return answer
