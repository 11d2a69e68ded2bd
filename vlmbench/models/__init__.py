"""One file an architecture; each holds the `Model` instances that the catalogue collects."""
