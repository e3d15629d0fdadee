"""Texts of the model's input and output: prompts, box codecs, completions."""
