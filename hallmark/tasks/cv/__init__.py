"""Match a curriculum vitae (CV) with a job: which skills it shows, where, and which are missing."""
