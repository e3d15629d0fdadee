"""Settings of the steps of the data engine: one file for each section of a project file."""
