"""Fine-tuning (METHOD section 6): data, losses, the module that is trained, the trainer, negatives and plans."""
