"""Encodes corpora and queries into files on disk."""
