"""Builds FAISS and Lucene indexes for Pyserini, and compressed vectors for MaxSim, from a store in bounded memory."""
