"""The documentation in a browser; `python -m tests.docs.site OUT_DIR` builds it."""
