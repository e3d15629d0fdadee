"""Long work: atomic files, jobs of resumable units, process pools, progress bars."""
