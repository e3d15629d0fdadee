"""WebDataset shards: their schema, writers, and readers that tolerate damage."""
