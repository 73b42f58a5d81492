"""A store into FAISS and Lucene indexes that Pyserini reads, and compressed vectors for MaxSim, in bounded memory."""
