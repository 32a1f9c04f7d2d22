"""The house keeps its layers, and importing it stays cheap."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = ("torchvision", "timm", "transformers", "PIL", "pyarrow", "sklearn", "tensorboard")


def _loaded_by(statement: str) -> set[str]:
    probe = f"import sys\n{statement}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(out.stdout.split())


def _rooms() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "penjing").glob("*/__init__.py"))


def test_importing_penjing_pulls_no_model_library() -> None:
    assert not _loaded_by("import penjing").intersection(HEAVY)


def test_importing_every_room_pulls_no_model_library() -> None:
    everything = "\n".join(f"import penjing.{room}" for room in _rooms())
    assert not _loaded_by(everything).intersection(HEAVY)


def test_core_pulls_no_torch() -> None:
    assert "torch" not in _loaded_by("import penjing.core")


def test_rooms_import_only_lower_rooms() -> None:
    lint = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    if lint is None:
        pytest.skip("import-linter is not installed: pip install 'penjing[dev]'")
    run = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr
