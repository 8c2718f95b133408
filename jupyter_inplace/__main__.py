"""``python -m jupyter_inplace``: the command line."""

import sys

from jupyter_inplace.cli.command import main

if __name__ == "__main__":
    sys.exit(main())
