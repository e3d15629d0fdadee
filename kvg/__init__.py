"""KVG: models that find a thing by its name when the name takes knowledge (arXiv 2503.12797)."""
