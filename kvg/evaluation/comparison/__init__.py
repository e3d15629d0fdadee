"""Several runs on the same questions."""
