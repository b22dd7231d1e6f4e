"""The derivative rules of eigenpairs, and the linear systems that they need."""
