"""Several jobs as the steps of one configuration: planned, skipped when up to date, run."""
