"""Wrappers of vision-language models, one family a file."""
