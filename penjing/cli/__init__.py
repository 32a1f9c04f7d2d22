"""Words in, words out: the only room that prints."""

from penjing.cli._app import main as main
