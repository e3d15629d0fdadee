"""Composites: several entities of one category on one canvas, with exact boxes."""
