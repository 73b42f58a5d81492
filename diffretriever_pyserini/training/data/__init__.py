"""From files of pairs to training batches."""
