#!/usr/bin/env python
"""The program xgpt-prepare-text, for use from a checkout."""

from xgpt_fairseq.cli.prepare_text import main

if __name__ == "__main__":
    main()
