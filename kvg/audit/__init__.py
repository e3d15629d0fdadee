"""Audits of a finished set: how it is distributed, and by which shortcuts the target could be found."""
