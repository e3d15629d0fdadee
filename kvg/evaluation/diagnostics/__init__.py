"""Failure signatures: what goes wrong behind a score."""
