"""Drawn scenes with captions: a data set without a download, for first steps, tests and demonstrations."""
