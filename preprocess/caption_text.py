#!/usr/bin/env python
"""The program xgpt-caption-text, for use from a checkout."""

from xgpt_fairseq.cli.caption_text import main

if __name__ == "__main__":
    main()
