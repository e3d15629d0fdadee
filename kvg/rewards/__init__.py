"""Rewards of stage 2: small setting objects that score completions."""
