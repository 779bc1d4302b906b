"""Videos: reading frames with their times, and writing them in segments."""
