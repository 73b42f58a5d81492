"""Parts of ``scripts/train_mini.py``, the recipe of the default model."""
