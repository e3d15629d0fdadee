"""WebDataset shards: their schema, how they are written, and how they are read in spite of damage."""
