"""Eigensolvers: ``solve(...) -> Ritz``. None knows of derivatives or of another."""
