"""What may be given as A or M, and what a few products tell of it."""
