"""Settings that people write: YAML files, overlays, the classes that they name, and where these are looked for."""
