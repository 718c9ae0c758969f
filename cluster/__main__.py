"""`python -m cluster` is `quorumca`: works where the installed script does not, as in a checkout that was moved."""

import sys

from cluster.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
