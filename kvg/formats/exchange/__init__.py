"""Formats of other tools: reads their pictures and boxes, and writes ours for them; one file per format."""
