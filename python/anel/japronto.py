"""anel as Japronto, for programs that change one line: `from anel.japronto import Application`.

Owns nothing: the names are those of `alias`. `python -m anel.japronto program.py` is short for
`anel run --japronto program.py`, which changes not even that line.
"""

from __future__ import annotations

import sys

from anel.alias import Application, RouteNotFoundException, __version__

__all__ = ["Application", "RouteNotFoundException", "__version__"]

if __name__ == "__main__":
    from anel.cli import main

    main(["run", "--japronto", *sys.argv[1:]], prog_name="python -m anel.japronto")
