"""`python -m celeriac`, the same as `celeriac`."""

from __future__ import annotations

import sys

from celeriac.cli import main

if __name__ == "__main__":
    sys.exit(main())
