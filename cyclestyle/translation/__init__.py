"""Files to files: jobs, batches, images of any size, steady video, and one loop that reads, translates and writes."""
