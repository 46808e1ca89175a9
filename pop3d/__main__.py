"""`python -m pop3d`."""

import os
import sys

# Python puts the current folder before all others. It may be a stranger's, so nothing is imported from it, unless this
# program itself lies there. These two modules are built in, or loaded already.
if sys.path and sys.path[0] in ("", os.path.realpath(".")) and not __file__.startswith(os.path.join(sys.path[0], "")):
    del sys.path[0]

from pop3d.cli import main

main()
