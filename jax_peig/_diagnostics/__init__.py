"""How good the computed eigenpairs are: bounds, clusters, the info of a result."""
