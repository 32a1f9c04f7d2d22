"""Training states on disk: one safetensors file per state, all but tensors as JSON in its header."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from penjing.core import RunError, UsageError
from penjing.pipeline._files import write
from penjing.recover import TrainState


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoints:
    """The latest training state of one step; each file's name carries its order and its checksum."""

    folder: Path
    step: str

    def save(self, state: TrainState) -> None:
        """Replaces the stored state; a crash in between leaves the older one."""
        self.folder.mkdir(exist_ok=True)
        old = self._files()
        content = save(state.to_tensors(), metadata={"state": state.to_json()})
        order = int(old[-1].name.split(".")[1]) + 1 if old else 0
        write(self.folder / f"{self.step}.{order:06d}.{_digest(content)}.safetensors", content)
        for path in old:
            path.unlink()

    def load(self) -> TrainState | None:
        """The stored state, None where there is none; an altered file is a `RunError` with its name."""
        files = self._files()
        if not files:
            return None
        path = files[-1]
        try:
            if _digest(path.read_bytes()) != path.name.split(".")[2]:
                raise ValueError("its checksum differs from the one in its name")
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return TrainState.from_parts(tensors, file.metadata()["state"])
        except (SafetensorError, KeyError, TypeError, ValueError, UsageError) as error:
            fix = f"Delete it to repeat the step {self.step} from its start."
            raise RunError(f"{path} is torn or altered: {error}. {fix}") from None

    def clear(self) -> None:
        """Removes the stored state and what a kill amid writing one left."""
        for path in (*self._files(), *self.folder.glob(f".{self.step}.*.tmp")):
            path.unlink()
        if self.folder.exists() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.step}.*.safetensors"))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]
