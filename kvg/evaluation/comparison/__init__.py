"""Comparison of several runs on the same questions."""
