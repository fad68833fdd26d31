"""What is fetched, from where, and how a fetch ends that goes wrong."""

import pickle
import shutil
import socket
import ssl
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

from tests import clips
from vidlada_hf.processing import addresses_vidlada
from vidlada_hf.processing.addresses_vidlada import AllowedAddress, _is_public, allow_addresses, fetch, protocol_of
from vidlada_hf.processing.limits_vidlada import ReadingLimits
from vidlada_hf.processing.video_reading_vidlada import VideoReadingError, read_video

from .helpers import assert_names_source_and_remedy, every_frame
from .servers import content, redirect, serve


@pytest.fixture
def no_network(monkeypatch):
    """Fails the test if a name is resolved or a connection is opened."""

    def fail(*args, **options):
        pytest.fail(f"the network was used: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(socket, "create_connection", fail)


def fetched(address, **options):
    with fetch(address, allow_urls=True, allow_private=True, **options) as file:
        return file.read()


# -- consent


@pytest.mark.parametrize(
    "source",
    [
        "http://example.com/clip.mp4",
        "HTTPS://example.com/clip.mp4",
        "ftp://example.com/clip.mp4",
        "concat://a.ts",
        ["http://example.com/1.png", "http://example.com/2.png"],
        [np.zeros((4, 4, 3), np.uint8), "https://example.com/2.png"],
        {"bytes": None, "path": "https://example.com/clip.mp4"},
    ],
    ids=str,
)
def test_a_text_that_looks_like_an_address_is_not_fetched(no_network, source):
    with pytest.raises(VideoReadingError, match="allow_urls=True"):
        read_video(source, every_frame)


def test_addresses_are_told_from_paths():
    assert [protocol_of(text) for text in ("http://a/b", "FILE:///b", "a+b-1.c://d")] == ["http", "file", "a+b-1.c"]
    for path in ("a.mp4", "/data/http://b.mp4", "C:\\b.mp4", "1://b", "a:b", "", None, b"http://a", 3):
        assert protocol_of(path) is None
    allowed = allow_addresses(["http://a/b", "b.png", ["https://c"]])
    assert [type(item) for item in (*allowed[:2], *allowed[2])] == [AllowedAddress, str, AllowedAddress]
    assert type(pickle.loads(pickle.dumps(allowed[0]))) is AllowedAddress  # in the workers of a loader


def test_what_is_allowed_is_fetched(tmp_path):
    path = clips.encode(tmp_path / "clip.mp4", frames=20)
    pages = {"/a%20clip.mp4?key=1": content(path.read_bytes()), "/there": redirect("/a clip.mp4?key=1")}
    for index, picture in enumerate(clips.pictures(3)):
        Image.fromarray(picture).save(tmp_path / f"{index}.png")
        pages[f"/{index}.png"] = content((tmp_path / f"{index}.png").read_bytes())
    with serve(pages) as host:
        for source, options in (
            (f"{host}/a clip.mp4?key=1", {"allow_urls": True}),
            (AllowedAddress(f"{host}/there"), {}),
        ):
            frames, _ = read_video(source, lambda _: [2, 19], allow_private_urls=True, **options)
            assert np.array_equal(frames, clips.decode_all(path)[[2, 19]])
        frames, _ = read_video(
            [f"{host}/{index}.png" for index in range(3)], lambda _: [0, 2], allow_urls=True, allow_private_urls=True
        )
        assert np.array_equal(frames, np.stack(list(clips.pictures(3)))[[0, 2]])


# -- from where


@pytest.mark.parametrize(
    "number",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
        ),
        *("224.0.0.1", "224.0.1.1", "255.255.255.255", "240.0.0.1", "198.18.0.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1"),
        *("2002:7f00:1::", "2002:a00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
    ],
)
def test_private_numbers(number):
    assert not _is_public(number)


@pytest.mark.parametrize("number", ["93.184.216.34", "8.8.8.8", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_public_numbers(number):
    assert _is_public(number)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:127.0.0.1]", "0"]
)
def test_this_machine_is_refused_under_every_name(monkeypatch, host):
    monkeypatch.setattr(socket, "create_connection", lambda *args: pytest.fail(f"connected to {args}"))
    with pytest.raises(VideoReadingError, match="allow_private_urls=True|no host"):
        fetch(f"http://{host}:80/clip.mp4", allow_urls=True)


def test_a_name_is_resolved_once_and_that_number_is_connected_to(monkeypatch):
    """A name that is public when it is checked and private when it is used would lead inside."""
    resolved, connected = [], []

    def resolve(host, port, **options):
        resolved.append(host)
        numbers = ["10.0.0.1", "93.184.216.34"] if len(resolved) == 1 else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (number, port)) for number in numbers]

    def connect(address, *options):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(VideoReadingError, match="ConnectionRefusedError"):
        fetch("https://rebinding.example/clip.mp4", allow_urls=True)
    assert resolved == ["rebinding.example"] and connected == [("93.184.216.34", 443)]


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("http://127.0.0.2:{port}/clip", "127.0.0.2, which belongs to this machine"),
        ("//127.0.0.2:{port}/clip", "127.0.0.2, which belongs to this machine"),
        ("file:///etc/hostname", "no http.s. address"),
        ("ftp://127.0.0.1/clip", "no http.s. address"),
        ("/a", "redirected more than"),
        ("http://127.0.0.1:99999/", "no address"),
    ],
)
def test_every_redirect_is_checked(monkeypatch, target, problem):
    monkeypatch.setattr(addresses_vidlada, "_is_public", lambda number: number == "127.0.0.1")
    pages = {"/clip": content(b"what nobody may see")}
    with serve(pages) as host:
        pages["/a"] = redirect(target.format(port=host.rpartition(":")[2]))
        with pytest.raises(VideoReadingError, match=problem):
            fetch(f"{host}/a", allow_urls=True)


# -- how it ends


def test_odd_addresses_are_quoted():
    pages = {"/%C3%BC%20b.mp4?a=%C3%BC%20b&c=%20": content(b"video"), "/": content(b"root")}
    with serve(pages) as host:
        assert fetched(f"{host}/ü b.mp4?a=ü b&c=%20") == b"video"
        assert fetched(host) == fetched(f"{host}#part") == b"root"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_https_checks_the_certificate(tmp_path, monkeypatch):
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=a -addext"
    subprocess.run([*command.split(), "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    with serve({"/a": content(b"video")}, context) as host:
        port = host.rpartition(":")[2]
        with pytest.raises(VideoReadingError, match="CERTIFICATE_VERIFY_FAILED"):
            fetched(f"https://localhost:{port}/a")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
        assert fetched(f"https://localhost:{port}/a") == b"video"
        with pytest.raises(VideoReadingError, match="CERTIFICATE_VERIFY_FAILED"):  # it is of another name
            fetched(f"https://127.0.0.1:{port}/a")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/clip.mp4", "nowhere://clip.mp4", "http://no.host.invalid/a"])
def test_an_address_that_does_not_answer(address):
    with pytest.raises(VideoReadingError, match="Check") as caught:
        read_video(address, every_frame, allow_urls=True, allow_private_urls=True)
    assert_names_source_and_remedy(caught.value, repr(address))


@pytest.mark.parametrize("declared", [None, -1])
def test_the_limit_of_bytes(declared):
    with serve({"/clip": content(bytes(100_000), declared)}) as host:
        assert len(fetched(f"{host}/clip", max_bytes=100_000)) == 100_000
        with pytest.raises(VideoReadingError, match="larger than 99999 bytes.*max_download_bytes"):
            fetched(f"{host}/clip", max_bytes=99_999)
        with pytest.raises(VideoReadingError, match="larger than 50 bytes"):
            limits = ReadingLimits(max_download_bytes=50)
            read_video(AllowedAddress(f"{host}/clip"), every_frame, allow_private_urls=True, limits=limits)


def test_what_a_server_may_get_wrong():
    pages = {
        "/cut": content(bytes(1000), declared=5000),
        "/page": content(b"<html>Sign in</html>"),
        "/error": lambda request: request.send_error(503),
        "/no-http": lambda request: request.wfile.write(b"SSH-2.0-OpenSSH\r\n"),
        "/length": lambda request: request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nabc"),
        "/empty": content(b""),
    }
    problems = {"/cut": "1000 of 5000", "/page": "is no video", "/error": "503", "/empty": "empty", "/none": "404"}
    with serve(pages) as host:
        for page in (*pages, "/none"):
            with pytest.raises(VideoReadingError, match=problems.get(page, "cannot be fetched|no video")):
                read_video(f"{host}{page}", every_frame, allow_urls=True, allow_private_urls=True)


def silent(request):
    request.is_over(20)


def drip_head(request):
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not request.is_over(0.05):
        request.wfile.write(b"a")


def drip_body(request):
    content(b"", declared=-1)(request)
    while not request.is_over(0.05):
        request.wfile.write(b"a")


@pytest.mark.parametrize("page", [silent, drip_head, drip_body])
def test_a_server_that_holds_on(monkeypatch, page):
    monkeypatch.setattr(addresses_vidlada, "_SILENCE", 0.5)
    monkeypatch.setattr(addresses_vidlada, "_HEAD", 0.7)
    began = time.monotonic()
    with serve({"/a": page}) as host, pytest.raises(VideoReadingError, match="slow|timed out|took longer than 0.6 s"):
        fetched(f"{host}/a", max_seconds=0.6)
    assert time.monotonic() - began < 5
