"""Many concepts trained at once: planned and written by one process, trained by workers that know of no library."""
