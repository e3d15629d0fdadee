"""Workflows of commands that depend on each other: steps, sweeps, and the demo."""
