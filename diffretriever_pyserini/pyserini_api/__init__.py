"""Our classes behind Pyserini's interfaces."""
