"""The way in, light enough that Ctrl-C is heard before anything heavy is loaded."""

import sys

from penjing.cli._interrupt import CODE, end_at_once, interrupted


def main() -> None:
    """The `penjing` command. Exit codes: 0 done, 2 wrong use, 3 done but not certified, 4 budget out of reach, 130
    interrupted."""
    end_at_once()
    try:
        from penjing.cli._app import run

        code = run()
    except KeyboardInterrupt:
        print(interrupted(), file=sys.stderr)
        code = CODE
    sys.exit(code)
