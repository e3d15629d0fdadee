"""The command lines ``kvg`` and ``kvg-data``: one file a command."""
