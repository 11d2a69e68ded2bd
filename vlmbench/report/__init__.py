"""What people read: the summary table, the progress bar."""
