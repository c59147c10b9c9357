"""Budget, solver, plan file, and the only code that changes a network."""
