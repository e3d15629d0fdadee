"""The uncertainty of scores: bootstrap, paired tests, power, several seeds."""
