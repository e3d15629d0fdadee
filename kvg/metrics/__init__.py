"""Benchmark scores and their uncertainty."""
