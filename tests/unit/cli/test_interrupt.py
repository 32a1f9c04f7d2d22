"""Ctrl-C ends with one line and exit 130, wherever it falls."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from penjing.cli._interrupt import end_at_once, in_order

START = "from penjing.cli import main; print('up', flush=True); main()"


@pytest.mark.parametrize("seconds", [0.1, 0.5, 2.0], ids=lambda seconds: f"after {seconds} s")
@pytest.mark.parametrize(
    "words",
    [("inspect", "file:net.py:make"), ("shape", "--model", "file:net.py:make", "--data", "builtin:digits")],
    ids=lambda words: words[0],
)
def test_an_interrupt_leaves_one_line(tmp_path: Path, words: tuple[str, ...], seconds: float):
    (tmp_path / "net.py").write_text("import time\ndef make():\n    time.sleep(60)\n")
    if words[0] == "shape":
        words = (*words, "--budget", "macs<=0.5x")
    started = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "up\n"
    time.sleep(seconds)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith("base ...")]
    assert started.returncode == 130
    assert len(said) == 1
    assert said[0].startswith("interrupted")
    assert "Traceback" not in out + err


def test_in_order_the_first_raises_and_the_old_ways_come_back():
    end_at_once()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(KeyboardInterrupt), in_order():
            signal.raise_signal(number)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_where_ctrl_c_is_ignored_it_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_at_once()
    with in_order():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
