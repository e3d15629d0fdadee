"""The catalogue of single-entity pictures: where they come from, which can be used, and who may see them."""
