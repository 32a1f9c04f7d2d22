"""Synthetic speech, made once by the pinned eSpeak NG library and kept in the cache.

It is the one package of which something is run, since running it is what makes the sound: its checksum is compared
first, and it runs in a process of its own.
"""

import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from penjing.core import DataError
from penjing.packages import cache_folder, fetched
from penjing.tasks import _sound_voice
from penjing.tasks._require import require
from penjing.tasks._sound_files import INSTALL, resampled

PACKAGE = "espeak-ng"
LIBRARY = "espeakng_loader/libespeak-ng.so"
LIBRARY_SHA256 = "b15ce0803b26254e8a0d088c6b9281a2637b2b02613147cc320cfdefaf2c3ccf"
VOICE_DATA = "espeakng_loader"
RATE = 16_000  # Hz, of what is kept
SECONDS = 600  # before the library is given up
Saying = tuple[str, str, int, int]  # text, voice, words per minute, pitch from 0 to 99
Progress = Callable[[int, int], None]


class Speech(NamedTuple):
    """Clips [n] of int16 at RATE."""

    clips: Sequence[np.ndarray]


def speech(name: str, job: Sequence[Saying], progress: Progress | None = None) -> Speech:
    """Every saying of `job` as sound: from the cache, or made and put there under `name`.

    `progress` is called with clips so far and clips in all. Raises DataError where the package has not been fetched,
    the library is not the one we know, this is not the platform it is made for, or it fails.
    """
    asked = json.dumps([LIBRARY_SHA256, RATE, list(job)])
    key = hashlib.sha256(asked.encode()).hexdigest()[:16]
    path = cache_folder() / "made" / f"{name}-{key}.safetensors"
    kept = _kept(path, len(job))
    if kept is None:
        kept = _made(job, progress)
        _keep(path, kept)
    return Speech(kept)


def _made(job: Sequence[Saying], progress: Progress | None) -> list[np.ndarray]:
    folder = fetched(PACKAGE)
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise DataError(
            f"Synthetic speech is made by a library for Linux on x86-64; this is {sys.platform} on "
            f"{platform.machine()}. Fix: make it there and copy the cache folder's 'made' here"
        )
    library = folder / LIBRARY
    found = hashlib.sha256(library.read_bytes()).hexdigest()
    if found != LIBRARY_SHA256:
        raise DataError(
            f"{library} is not the library that is known (its checksum is {found}), so it is not run. "
            f"Fix: remove {folder} and penjing data fetch {PACKAGE}"
        )
    with tempfile.TemporaryDirectory() as aside:
        out = Path(aside) / "speech.raw"
        rate = _run(library, folder / VOICE_DATA, out, job, progress)
        raw = np.fromfile(out, dtype=np.uint8)
    return [_at_rate(samples, rate) for samples in _parts(raw, len(job))]


def _run(library: Path, data: Path, out: Path, job: Sequence[Saying], progress: Progress | None) -> int:
    """Runs the library over `job`; returns its sample rate."""
    command = [sys.executable, "-I", "-S", _sound_voice.__file__, str(library), str(data), str(out)]
    with tempfile.TemporaryFile("w+") as words, tempfile.TemporaryFile("w+") as complaints:
        json.dump(list(job), words)
        words.seek(0)
        with subprocess.Popen(
            command,
            stdin=words,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            env={"LC_ALL": "C.UTF-8"},
        ) as process:
            assert process.stdout is not None
            try:
                rate = _follow(process.stdout, len(job), progress)
                code = process.wait(SECONDS)
            except BaseException:
                process.kill()
                raise
        complaints.seek(0)
        said = " ".join(complaints.read().split())[-300:]
    if code != 0:
        raise DataError(
            f"The eSpeak NG library failed (exit {code}): {said or 'it says nothing'}. Fix: report this to Penjing"
        )
    return rate


def _follow(told: IO[str], total: int, progress: Progress | None) -> int:
    rate = 0
    for line in told:
        if not rate:
            rate = int(line)
        elif progress is not None:
            progress(int(line), total)
    if progress is not None:
        progress(total, total)
    return rate


def _parts(raw: np.ndarray, count: int) -> list[np.ndarray]:
    parts, at = [], 0
    for _ in range(count):
        length = 2 * int(raw[at : at + 8].view("<u8")[0])
        parts.append(raw[at + 8 : at + 8 + length].view("<i2"))
        at += 8 + length
    return parts


def _at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    if not len(samples):
        raise DataError("The eSpeak NG library said nothing. Fix: report this to Penjing")
    wave = resampled(samples.astype(np.float32), rate, RATE)
    return np.clip(np.rint(wave), -32768, 32767).astype(np.int16)


def _keep(path: Path, clips: Sequence[np.ndarray]) -> None:
    save = require("safetensors.numpy", INSTALL).save_file
    samples = np.concatenate(clips)
    ends = np.cumsum([len(clip) for clip in clips]).astype(np.int64)
    seal = {"count": str(len(clips)), "sha256": hashlib.sha256(samples.data).hexdigest()}
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save({"samples": samples, "ends": ends}, aside, metadata=seal)
        os.replace(aside, path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error}. Fix: set PENJING_CACHE elsewhere") from error
    finally:
        aside.unlink(missing_ok=True)


def _kept(path: Path, count: int) -> list[np.ndarray] | None:
    """The clips in the file, or None where it is not there, torn or altered: then it is made again."""
    try:
        with require("safetensors", INSTALL).safe_open(path, framework="numpy") as file:
            seal, samples, ends = file.metadata(), file.get_tensor("samples"), file.get_tensor("ends")
        whole = (str(count), hashlib.sha256(samples.data).hexdigest())
        if (seal.get("count"), seal.get("sha256")) != whole or len(ends) != count or ends[-1] != len(samples):
            return None
        return np.split(samples, ends[:-1].tolist())
    except (OSError, ValueError, KeyError, AttributeError, require("safetensors", INSTALL).SafetensorError):
        return None
