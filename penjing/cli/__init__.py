"""Words in, words out: the only room that prints."""

from penjing.cli._main import main as main
