"""The demonstration: Pyserini's own commands, end to end, on a collection that every Python carries or one of yours."""
