"""The steps of the data engine as functions."""
