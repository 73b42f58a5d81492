"""Reading and writing files: whole or not at all, every complaint with file and line."""
