"""Captions as data (section 6.1): a trained model's captions beside people's, chosen, counted and written out."""
