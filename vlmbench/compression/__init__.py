"""One file a family of recipes; each holds the instances that the catalogue collects."""
