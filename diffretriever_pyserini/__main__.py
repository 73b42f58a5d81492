"""`python -m diffretriever_pyserini` is the command `diffretriever`."""

import sys

from diffretriever_pyserini.cli import main

if __name__ == "__main__":
    sys.exit(main())
