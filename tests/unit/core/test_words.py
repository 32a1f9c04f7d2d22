"""Words of others cannot steer the terminal."""

import pytest

from penjing.core import clean, cut


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("two\nlines\t", r"two\nlines\t"),
        ("\u202egnp.exe\u2028", r"\u202egnp.exe\u2028"),
        ("\udcff\x9b", r"\udcff\x9b"),
        ("Grüße 数据 ±", "Grüße 数据 ±"),
    ],
)
def test_what_a_terminal_obeys_is_written_out(text: str, seen: str):
    assert clean(text) == seen


def test_own_line_breaks_may_stay():
    assert clean("a\nb\r", lines=True) == "a\nb\\r"


def test_cut_keeps_the_beginning():
    assert (cut("abc", 3), cut("abcd", 3)) == ("abc", "ab…")
