"""Run files, retrieval measures and the tables that show them."""
