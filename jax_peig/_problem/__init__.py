"""What an eigensolver is given, what it returns, and what the iterative ones share."""
