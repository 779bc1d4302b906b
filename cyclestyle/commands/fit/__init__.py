"""`fit`, `validate` and `test`."""
