"""The commands of ``kvg-data``, one a file."""
