"""C{python -m udpecho}: the C{udpecho} command."""

import sys

from udpecho.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
