"""Reading and writing files: outputs are complete or absent, and every error names file and line."""
