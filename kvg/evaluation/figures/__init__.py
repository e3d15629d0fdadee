"""Figures of one run, with intervals."""
