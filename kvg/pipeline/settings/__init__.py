"""Settings of the steps of the data engine, a file for each section of a project file."""
