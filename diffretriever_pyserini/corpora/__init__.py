"""Readers of corpora, topics and judgements."""
