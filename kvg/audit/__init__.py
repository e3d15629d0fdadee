"""Audits of a finished set: its distributions, and shortcuts that find the target without knowing its looks."""
