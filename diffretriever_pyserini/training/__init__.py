"""Fine-tuning (docs/method.md §6): data, losses, the module that is trained, the trainer, negatives and plans."""
