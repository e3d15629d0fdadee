"""Audits of a finished set: its distributions, and the shortcuts that would find the target without its looks."""
