"""Fetching from a registry on this machine: a web server with a wheel, a tarball and a Debian package."""

import functools
import hashlib
import http.server
import io
import json
import lzma
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from penjing.core import DataError
from penjing.packages import CATALOGUE, Package, cache_folder, fetch, fetched
from penjing.packages import _catalogue as catalogue
from penjing.packages import _download as download
from penjing.packages._archives import unpack

FILES = {"pack/data/words.txt": b"one two", "pack/code.py": b"raise SystemExit", "pack/data/more/é.txt": b"3"}
MEMBERS = ("pack/data/*",)


def wheel(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def tarball(files: dict[str, bytes], mode: str = "w:gz", links: dict[str, str] | None = None) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return stream.getvalue()


def deb(files: dict[str, bytes]) -> bytes:
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": tarball(files, "w:xz")}
    found = b"!<arch>\n"
    for name, content in parts.items():
        head = f"{name:16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n"
        found += head.encode() + content + b"\n" * (len(content) % 2)
    return found


CONTENT = {
    "pypi": ("pack-1-py3-none-any.whl", wheel(FILES)),
    "npm": ("pack-1.tgz", tarball(FILES)),
    "debian": ("pack_1~2_all.deb", deb({f"./{k}": v for k, v in FILES.items()})),
}


def package(registry: str, **changed: object) -> Package:
    file, content = CONTENT[registry]
    return replace(
        Package(
            name="pack",
            registry=registry,  # type: ignore[arg-type]
            project="pack",
            file=file,
            sha256=hashlib.sha256(content).hexdigest(),
            size=len(content),
            licence="none",
            members=MEMBERS,
            unpacked=100,
            place="p/pack",
        ),
        **changed,  # type: ignore[arg-type]
    )


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that is served as three registries at once; the cache is beside it."""
    root = tmp_path / "web"
    for place, (file, content) in {
        "pack": CONTENT["pypi"],
        "pack/-": CONTENT["npm"],
        "pool/main/p/pack": CONTENT["debian"],
    }.items():
        (root / place).mkdir(parents=True, exist_ok=True)
        (root / place / file).write_bytes(content)
    listing = {"files": [{"filename": CONTENT["pypi"][0], "url": f"./{CONTENT['pypi'][0]}"}]}
    (root / "pack" / "index.html").write_text(json.dumps(listing))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for variable in ("PIP_INDEX_URL", "NPM_CONFIG_REGISTRY", "PENJING_DEBIAN"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "cache"))
    yield root
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


def known(monkeypatch: pytest.MonkeyPatch, found: Package) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", {found.name: found})


@pytest.mark.parametrize("kind", ["pypi", "npm", "debian"])
def test_fetches_once_and_keeps_what_matches(registry: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    known(monkeypatch, package(kind))
    steps: list[tuple[int, int]] = []
    folder = fetch("pack", lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(CONTENT[kind][1])
    texts = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.txt")}
    assert texts == {k: v for k, v in FILES.items() if k.startswith("pack/data/")}
    assert not list(folder.rglob("*.py"))
    for file in registry.rglob("*pack*1*"):
        file.unlink(missing_ok=True)
    assert fetch("pack") == fetched("pack") == folder
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name]


@pytest.mark.parametrize("archived", [False, True])
def test_a_single_compressed_index_is_had_from_the_mirror_or_the_archive(
    registry: Path, monkeypatch: pytest.MonkeyPatch, archived: bool
):
    content = lzma.compress(b"Package: one\n")
    folder = registry / ("old" if archived else "") / "dists/x/main"
    folder.mkdir(parents=True)
    (folder / "Packages.xz").write_bytes(content)
    monkeypatch.setattr(download, "ARCHIVE", f"{download._base('PENJING_DEBIAN', '')}/old")
    sha256 = hashlib.sha256(content).hexdigest()
    index = package("debian", file="Packages.xz", sha256=sha256, size=len(content), place="dists/x/main")
    known(monkeypatch, replace(index, members=("Packages",)))
    assert (fetch("pack") / "Packages").read_bytes() == b"Package: one\n"


def test_a_compressed_index_is_bounded_and_whole(tmp_path: Path):
    bomb = tmp_path / "bomb.xz"
    bomb.write_bytes(lzma.compress(bytes(10_000_000)))
    with pytest.raises(DataError, match="holds more than it should"):
        unpack(bomb, ("bomb",), tmp_path, 1_000)
    assert (tmp_path / "bomb").stat().st_size == 0
    bomb.write_bytes(lzma.compress(b"x" * 10_000)[:-20])
    with pytest.raises(DataError, match="torn"):
        unpack(bomb, ("bomb",), tmp_path, 100_000)


def test_another_file_is_refused_and_nothing_stays(registry: Path, monkeypatch: pytest.MonkeyPatch):
    known(monkeypatch, package("npm", sha256="0" * 64))
    with pytest.raises(DataError, match=r"has the checksum .*not the 0{64}"):
        fetch("pack")
    assert not list((cache_folder() / "packages").iterdir())


def test_an_endless_file_is_not_read_to_its_end(registry: Path, monkeypatch: pytest.MonkeyPatch):
    known(monkeypatch, package("npm", size=10))
    (registry / "pack/-/pack-1.tgz").write_bytes(CONTENT["npm"][1] + bytes(50_000_000))
    seen: list[int] = []
    with pytest.raises(DataError, match="checksum"):
        fetch("pack", lambda done, total: seen.append(done))
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("kind", "missing"), [("pypi", "pack/index.html"), ("npm", "pack/-/pack-1.tgz"), ("debian", "pool")]
)
def test_what_cannot_be_had_is_told(registry: Path, monkeypatch: pytest.MonkeyPatch, kind: str, missing: str):
    known(monkeypatch, package(kind))
    (registry / missing).rename(registry / "elsewhere")
    with pytest.raises(DataError, match=r"cannot be fetched from .* Fix: go online, name a mirror"):
        fetch("pack")


def test_an_index_without_the_file_is_told(registry: Path, monkeypatch: pytest.MonkeyPatch):
    known(monkeypatch, package("pypi"))
    (registry / "pack/index.html").write_text('{"files": []}')
    with pytest.raises(DataError, match="does not list pack-1"):
        fetch("pack")
    (registry / "pack/index.html").write_text("<html>")
    with pytest.raises(DataError, match="is no package index"):
        fetch("pack")


def test_a_file_address_is_no_registry(registry: Path, monkeypatch: pytest.MonkeyPatch):
    known(monkeypatch, package("npm"))
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"file://{registry}")
    with pytest.raises(DataError, match="is no web address"):
        fetch("pack")


def test_a_damaged_folder_is_made_anew(registry: Path, monkeypatch: pytest.MonkeyPatch):
    known(monkeypatch, package("pypi"))
    folder = fetch("pack")
    (folder / "pack/data/words.txt").write_bytes(b"one")
    with pytest.raises(DataError, match="penjing data fetch pack"):
        fetched("pack")
    assert (fetch("pack") / "pack/data/words.txt").read_bytes() == b"one two"


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="Did you mean minilm"):
        fetch("mini-lm")


def test_a_cache_that_cannot_be_written_is_told(
    registry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    known(monkeypatch, package("pypi"))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PENJING_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="Fix: set PENJING_CACHE elsewhere"):
        fetch("pack")


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "pack/../../out.txt", "pack\\out.txt"])
def test_paths_that_lead_elsewhere_are_refused(tmp_path: Path, name: str):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(tarball({name: b"x"}))
    with pytest.raises(DataError, match="leads out of its folder"):
        unpack(archive, ("*",), tmp_path / "in", 100)
    assert not list(tmp_path.rglob("out.txt"))


def test_links_are_left_out(tmp_path: Path):
    archive = tmp_path / "a.tgz"
    archive.write_bytes(tarball({"a.txt": b"x"}, links={"b.txt": "/etc/passwd"}))
    assert unpack(archive, ("*",), tmp_path / "in", 100) == 1
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("kind", ["pypi", "npm", "debian"])
def test_more_than_it_should_hold_is_refused(tmp_path: Path, kind: str):
    archive = tmp_path / CONTENT[kind][0]
    archive.write_bytes(CONTENT[kind][1])
    with pytest.raises(DataError, match="holds more than it should"):
        unpack(archive, ("*",), tmp_path / "in", 5)


@pytest.mark.parametrize("kind", ["pypi", "npm", "debian"])
@pytest.mark.parametrize("keep", [0.2, 0.4])
def test_torn_archives_are_told(tmp_path: Path, kind: str, keep: float):
    archive = tmp_path / CONTENT[kind][0]
    archive.write_bytes(CONTENT[kind][1][: int(len(CONTENT[kind][1]) * keep)])
    with pytest.raises(DataError, match="is torn or no archive"):
        unpack(archive, ("*",), tmp_path / "in", 1000)


def test_the_catalogue_is_pinned():
    for name, found in CATALOGUE.items():
        assert found.name == name
        assert len(found.sha256) == 64
        assert found.size < 200_000_000
        assert found.licence
        assert found.members
        assert (found.registry == "debian") == bool(found.place)
