"""From texts to files on disk."""
