"""Indexes that Pyserini reads, made from a store in bounded memory."""
