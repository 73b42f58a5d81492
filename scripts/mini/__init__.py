"""Parts of ``scripts/train_mini.py``: how the embedded default model was made."""
