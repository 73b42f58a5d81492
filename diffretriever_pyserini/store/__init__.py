"""Representations on disk: parts that appear whole, are checked, and feed every index."""
