#!/usr/bin/env python
"""The program xgpt-extract-regions, for use from a checkout."""

from xgpt_fairseq.cli.extract_regions import main

if __name__ == "__main__":
    main()
