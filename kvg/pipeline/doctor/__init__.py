"""``kvg doctor``: checks before a training, with the answers of the base."""
