"""Rewards of stage 2: objects that hold settings and score completions."""
