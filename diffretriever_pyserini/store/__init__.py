"""Representations on disk, in checked parts from which every index is built."""
