"""Beyond one machine: Ray runs shards of encoding, indexing and searching (extra ``ray``)."""
