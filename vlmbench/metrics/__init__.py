"""One file a metric: a pure function (answers, references of each) -> one score a sample."""
