"""The data engine: composites and the rationales that go with them."""
