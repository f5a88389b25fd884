"""Entry point of `python -m scripts.servicelib`."""

import sys

from scripts.servicelib.cli import main

sys.exit(main(sys.argv[1:]))
