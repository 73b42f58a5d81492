"""From texts to K vectors and K vocabulary distributions."""
