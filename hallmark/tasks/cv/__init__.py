"""Whether a curriculum vitae (CV) shows what a job asks for, what shows it, and what is missing."""
