"""Records: written, read, looked up, deleted, and who produces them."""
