from __future__ import annotations

import hashlib
import io
import socket
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llm4sbr.contracts.errors import InputError
from llm4sbr.datamodules import AmazonBeauty, MovieLens100K
from llm4sbr.datamodules.download import fetch, unpack

BODY = bytes(range(256)) * 1000
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.encode("latin-1"))
    return buffer.getvalue()


RATINGS = "".join(f"{n % 7}\t{1 + n % 5}\t3\t{n}\n" for n in range(200))
MOVIES = "".join(f"{n}|Café {n} (1995)|x\n" for n in range(1, 6))
ARCHIVE = zipped({"ml-100k/u.data": RATINGS, "ml-100k/u.item": MOVIES})


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/gone":
            self.send_error(404)
            return
        body = ARCHIVE if self.path == "/ml.zip" else BODY
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_file_arrives_whole(server: str, tmp_path: Path, algorithm: str) -> None:
    checksum = f"{algorithm}:{hashlib.new(algorithm, BODY).hexdigest()}"
    file = fetch(f"{server}/body", tmp_path / "new" / "body", checksum)
    assert file.read_bytes() == BODY
    assert list(file.parent.iterdir()) == [file]


def test_a_file_at_hand_is_kept_and_a_wrong_one_replaced(server: str, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(BODY)
    fetch("http://127.0.0.1:9/never-asked", file, MD5)
    file.write_bytes(b"old")
    assert fetch(f"{server}/body", file, MD5).read_bytes() == BODY


@pytest.mark.parametrize(
    ("path", "checksum", "message"),
    [
        ("/cut", MD5, "only 128000 of 256000 bytes came"),
        ("/body", "md5:" + "0" * 32, "another checksum"),
        ("/gone", MD5, "404"),
    ],
)
def test_what_fails_leaves_nothing(
    server: str, tmp_path: Path, path: str, checksum: str, message: str
) -> None:
    folder = tmp_path / "down"
    with pytest.raises(InputError, match=message) as caught:
        fetch(server + path, folder / "file", checksum)
    assert str(folder / "file") in str(caught.value)
    assert list(folder.iterdir()) == []


def test_offline_says_where_to_put_the_file(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    with pytest.raises(InputError, match=f"put it at {tmp_path / 'x'}"):
        fetch(url, tmp_path / "x", MD5)


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(InputError, match="timed out"):
            fetch(url, tmp_path / "x", MD5, timeout=0.2)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y"])
def test_other_schemes_and_checksums_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="http"):
        fetch(url, tmp_path / "x", MD5)
    with pytest.raises(InputError, match="checksum is"):
        fetch("http://x", tmp_path / "x", "crc:1")


def test_an_archive_cannot_write_outside(tmp_path: Path) -> None:
    for name in ("../out", "/out", "a/../../out", "..\\out"):
        archive = tmp_path / "bad.zip"
        archive.write_bytes(zipped({"a/in": "x", name: "x"}))
        with pytest.raises(InputError, match="leads out"):
            unpack(archive, tmp_path, ["a/in"])
    archive.write_bytes(ARCHIVE[:-30])
    with pytest.raises(InputError, match="damaged"):
        unpack(archive, tmp_path, ["ml-100k/u.data"])
    archive.write_bytes(ARCHIVE)
    with pytest.raises(InputError, match="incomplete"):
        unpack(archive, tmp_path, ["ml-100k/u.user"])


def test_movielens_is_downloaded_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MovieLens100K, "checksum", "md5:" + hashlib.md5(ARCHIVE).hexdigest())
    folder = tmp_path / "ml"
    data = MovieLens100K(str(folder), url=f"{server}/ml.zip")
    monkeypatch.setattr("llm4sbr.datamodules.movielens.find_spec", lambda name: None)
    assert data.catalogue.titles[0] == "Café 1 (1995)"
    again = MovieLens100K(str(folder), url="http://127.0.0.1:9/never-asked")
    assert again.num_items == 5


def test_beauty_is_not_downloaded_without_checksums(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass a checksum"):
        AmazonBeauty(str(tmp_path), url=f"{server}/").prepare_data()
    names = ("reviews_Beauty_5.json.gz", "meta_Beauty.json.gz")
    checksums = dict.fromkeys(names, "md5:" + "0" * 32)
    with pytest.raises(InputError, match="another checksum"):
        AmazonBeauty(str(tmp_path), url=f"{server}/", checksums=checksums).prepare_data()
