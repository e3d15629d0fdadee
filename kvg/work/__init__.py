"""Long work: files written whole or not at all, numbered pieces that are resumed, several processes, progress."""
