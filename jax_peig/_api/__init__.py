"""The public functions of eigenpairs: arguments, the compiled solution, reports."""
