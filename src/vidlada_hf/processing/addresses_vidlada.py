"""Files at http(s) addresses: which may be fetched, and how they are.

An address is fetched if whoever asks said so: by the key `url` of a message (`AllowedAddress`) or by `allow_urls=True`.
A text that merely looks like an address never is, since it may come from somebody else: a data set, a form.

The file is downloaded whole into a temporary one before anything looks at its content. FFmpeg never sees the address.
"""

import ipaddress
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, BinaryIO
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from .limits_vidlada import DEFAULT_LIMITS
from .video_clip_vidlada import VideoReadingError

_SILENCE = 20.0  # seconds that a server may keep still
_HEAD = 30.0  # seconds until it has said whether it has the file
_REDIRECTS = 5
_PIECE = 1 << 18  # bytes read at a time
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # holds an IPv4 address in its last 32 bits
_SAFE = "/%:@!$&'()*+,;=~?"  # characters that an address holds as they are
_INSTEAD = "or download the file and pass its path"


class AllowedAddress(str):
    """An address that may be fetched, since whoever named it said that it is one."""


def protocol_of(source: Any) -> str | None:
    """The protocol of an address such as "https://..." in lower case; None for anything else, paths among it."""
    match = _PROTOCOL.match(source) if isinstance(source, str) else None
    return match[1].lower() if match else None


def is_address(source: Any) -> bool:
    """Whether a source is a text that only a download could read: it has a protocol, and that is not `file`."""
    return protocol_of(source) not in (None, "file")


def allow_addresses(source: Any) -> Any:
    """A source, or a list of them, with each text that has a protocol as an `AllowedAddress`."""
    if isinstance(source, (list, tuple)):
        return [allow_addresses(item) for item in source]
    return AllowedAddress(source) if protocol_of(source) else source


def fetch(
    address: str,
    *,
    allow_urls: bool = False,
    allow_private: bool = False,
    max_bytes: int = DEFAULT_LIMITS.max_download_bytes,
    max_seconds: float = DEFAULT_LIMITS.max_download_seconds,
) -> BinaryIO:
    """Downloads what is at an address.

    Args:
        address: http:// or https://.
        allow_urls: fetch it although it is no `AllowedAddress`.
        allow_private: fetch from this machine and its own network too.
        max_bytes, max_seconds: limits of the download.

    Returns:
        A temporary file at its start; it is gone when it is closed.

    Raises:
        VideoReadingError: it may not be fetched, by these rules, or cannot be; the rules hold for redirects as well.
    """
    if not (allow_urls or isinstance(address, AllowedAddress)):
        raise VideoReadingError(
            "it is an address, and addresses are fetched only if asked to. Pass it as"
            ' {"type": "video", "url": ...} in a message, set `allow_urls=True` (`--allow-urls`), ' + _INSTEAD
        )
    for _ in range(_REDIRECTS + 1):
        connection = _connection(address, allow_private)
        with closing(connection):
            try:
                response = connection.ask()
                target = response.getheader("Location") if response.status in (301, 302, 303, 307, 308) else None
                if target is None:
                    return _save(response, connection, max_bytes, max_seconds)
            except (OSError, HTTPException, ValueError) as error:
                if isinstance(error, VideoReadingError):
                    raise
                reason = "the server is too slow" if connection.is_cut else f"{type(error).__name__}: {error}"
                raise VideoReadingError(
                    f"it cannot be fetched ({reason}). Check the address and the connection, {_INSTEAD}"
                ) from error
        address = urljoin(address, target)
    raise VideoReadingError(f"it was redirected more than {_REDIRECTS} times. Check the address, {_INSTEAD}")


class _Connection(HTTPConnection):
    """A connection to one of the checked IP addresses of a host, so that its name is not resolved a second time."""

    def __init__(self, parts: SplitResult, port: int, numbers: list[str]) -> None:
        self._is_encrypted = parts.scheme == "https"
        self.default_port = 443 if self._is_encrypted else 80  # which the header "Host" leaves out
        super().__init__(str(parts.hostname), port, timeout=_SILENCE)
        self._target = quote(parts.path or "/", safe=_SAFE) + ("?" + quote(parts.query, _SAFE)) * bool(parts.query)
        self._numbers = numbers
        self._socket: socket.socket | None = None  # the base class forgets its own once the answer has begun
        self.is_cut = False

    def connect(self) -> None:
        for number in self._numbers:
            try:
                self._socket = socket.create_connection((number, self.port), _SILENCE)
                break
            except OSError:
                if number == self._numbers[-1]:
                    raise
        assert self._socket is not None
        if self._is_encrypted:
            context = ssl.create_default_context()
            secure = context.wrap_socket(self._socket, server_hostname=self.host, do_handshake_on_connect=False)
            self._socket = secure
            secure.do_handshake()
        self.sock = self._socket

    def ask(self) -> HTTPResponse:
        """Sends the request, and returns the answer once its head is there."""
        with self.within(_HEAD):
            self.request("GET", self._target, headers={"User-Agent": "vidlada_hf", "Accept-Encoding": "identity"})
            return self.getresponse()

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cuts the connection after so many seconds: a server that sends a byte now and then is never silent."""
        timer = threading.Timer(seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _cut(self) -> None:
        self.is_cut = True
        try:
            if self._socket is not None:
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # it is closed


def _connection(address: str, allow_private: bool) -> _Connection:
    """A connection to the address, not yet opened, if it may be fetched."""
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:  # an impossible port
        raise VideoReadingError(f"it is no address ({error}). Check it") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise VideoReadingError(
            f"{address[:200]!r} is no http(s) address with a host, and nothing else is fetched. Check it, {_INSTEAD}"
        )
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise VideoReadingError(
            f"there is no host {parts.hostname!r}. Check the address and the connection, {_INSTEAD}"
        ) from error
    numbers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    allowed = [number for number in numbers if allow_private or _is_public(number)]
    if not allowed:
        raise VideoReadingError(
            f"its host {parts.hostname!r} is {', '.join(numbers)[:200]}, which belongs to this machine or its own"
            f" network. Check the address, set `allow_private_urls=True` if that is meant, {_INSTEAD}"
        )
    return _Connection(parts, port, allowed)


def _is_public(number: str) -> bool:
    """Whether an IP address is one of the internet, for everybody; so must be one that is written within it."""
    ip = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if not all(one is None or _is_public(str(one)) for one in inner):
            return False
        if ip.ipv4_mapped or ip in _NAT64:
            return True
    return ip.is_global and not ip.is_multicast


def _save(response: HTTPResponse, connection: _Connection, max_bytes: int, max_seconds: float) -> BinaryIO:
    """The body of an answer as a temporary file."""
    if response.status != 200:
        raise VideoReadingError(
            f"the server answers {response.status} {response.reason}. Check the address, {_INSTEAD}"
        )
    declared = int(response.getheader("Content-Length") or 0)
    file: Any = tempfile.TemporaryFile(prefix="vidlada_")  # noqa: SIM115  # the caller closes it
    try:
        size = 0
        with connection.within(max_seconds):
            while size <= max_bytes and declared <= max_bytes and (piece := response.read1(_PIECE)):
                size += file.write(piece)
        if max(size, declared) > max_bytes:
            raise VideoReadingError(
                f"it is larger than {max_bytes} bytes, the limit of a download. Raise `max_download_bytes`, {_INSTEAD}"
            )
        if connection.is_cut:
            raise VideoReadingError(
                f"its download took longer than {max_seconds:g} s. Raise `max_download_seconds`, {_INSTEAD}"
            )
        if size < declared:
            raise VideoReadingError(f"the connection broke after {size} of {declared} bytes. Fetch it again")
        file.seek(0)
        return file
    except BaseException:
        file.close()
        raise


__all__ = ["AllowedAddress", "allow_addresses", "fetch", "is_address", "protocol_of"]
