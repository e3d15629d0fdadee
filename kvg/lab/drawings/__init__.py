"""One parametric drawing per category."""
