"""The page of a run, and the report of `test`."""
