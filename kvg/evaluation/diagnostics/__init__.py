"""Failure signatures: measured patterns in wrong answers."""
