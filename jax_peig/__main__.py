"""``python -m jax_peig``; see `jax_peig._cli.main`."""

import sys

from jax_peig._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
