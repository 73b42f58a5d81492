"""Fine-tuning (docs/method.md §6): data, losses, the trained module, the trainer, negative mining and plans."""
