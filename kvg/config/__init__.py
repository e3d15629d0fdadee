"""User settings: YAML files, overlays, the classes that they name, and the search path of these classes."""
