"""`python -m tests.docs.site OUT_DIR`: build the site, and check it; warnings are errors."""

import pathlib
import sys
import warnings

from tests.docs.site.build import build
from tests.docs.site.links import problems


def main(out):
    if out.exists() and any(out.iterdir()):
        sys.exit(f"{out} is not empty; give a new folder, or empty it.")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(out)
    found = problems(out.resolve())
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        sys.exit(1)
    print(f"{len(list(out.rglob('*.html')))} pages: open {out / 'index.html'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
