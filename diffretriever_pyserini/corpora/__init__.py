"""Readers of test collections: BEIR folders, topic files, and the documentation inside the interpreter."""
