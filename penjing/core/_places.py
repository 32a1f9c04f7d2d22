"""Where a network is run: runtime, device, batch size and threads, as people write it."""

import re
from dataclasses import dataclass
from typing import Literal, get_args

from penjing.core._errors import UsageError
from penjing.core._words import clean, cut

RuntimeName = Literal["eager", "compile", "onnx", "openvino"]
RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
ON_CPU: tuple[RuntimeName, ...] = ("onnx", "openvino")  # measured nowhere else
_DEVICE = re.compile(r"cpu|mps|(cuda|xpu)(:\d+)?")
_NUMBER = re.compile(r"(batch|threads)=([1-9]\d{0,6})")
_EXAMPLE = "such as openvino, cuda, batch=64, or onnx,batch=8,threads=2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is None is as in the rest of the run."""

    runtime: str | None = None
    device: str | None = None
    batch_size: int | None = None
    threads: int | None = None

    @classmethod
    def parse(cls, text: str) -> "Place":
        """A place from words set apart by commas, each at most once: a runtime, a device, batch=N, threads=N.

        Raises `UsageError` for anything else.

        >>> Place.parse("onnx, batch=8")
        Place(runtime='onnx', device=None, batch_size=8, threads=None)
        """
        found: dict[str, str | int] = {}
        for word in (part.strip() for part in text.split(",")):
            key, value = _told(word)
            if key in found:
                raise UsageError(f"{cut(clean(text))!r} says {key} twice; write a place {_EXAMPLE}")
            found[key] = value
        if found.get("runtime") in ON_CPU and found.get("device", "cpu") != "cpu":
            raise UsageError(
                f"{cut(clean(text))!r}: runtime {found['runtime']} is measured on the cpu; use eager or compile there"
            )
        return cls(**found)  # type: ignore[arg-type]

    def completed(self, home: "Place") -> "Place":
        """What is open is as at `home`; but runtimes of the CPU are there, and other devices are eager's."""
        elsewhere = self.device not in (None, "cpu") and home.runtime in ON_CPU
        return Place(
            runtime=self.runtime or ("eager" if elsewhere else home.runtime),
            device=self.device or ("cpu" if self.runtime in ON_CPU else home.device),
            batch_size=self.batch_size or home.batch_size,
            threads=self.threads or home.threads,
        )

    def __str__(self) -> str:
        numbers = (("batch", self.batch_size), ("threads", self.threads))
        words = [self.runtime, self.device, *(f"{name}={n}" if n else None for name, n in numbers)]
        return ",".join(word for word in words if word)


def _told(word: str) -> tuple[str, str | int]:
    """The field that a word sets, and its value."""
    if word in RUNTIMES:
        return "runtime", word
    if _DEVICE.fullmatch(word):
        return "device", word
    number = _NUMBER.fullmatch(word)
    if number is None:
        raise UsageError(
            f"{cut(clean(word))!r} is no runtime ({', '.join(RUNTIMES)}), no device (cpu, cuda, cuda:1), no batch=N "
            f"and no threads=N; write a place {_EXAMPLE}"
        )
    return {"batch": "batch_size", "threads": "threads"}[number[1]], int(number[2])
