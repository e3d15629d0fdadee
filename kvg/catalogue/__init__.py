"""The catalogue of single-entity pictures: their sources, the checks of each picture, and the splits."""
