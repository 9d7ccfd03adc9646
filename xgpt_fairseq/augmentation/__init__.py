"""Data augmentation with generated captions (section 6.1)."""
