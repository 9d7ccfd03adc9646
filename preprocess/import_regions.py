#!/usr/bin/env python
"""The program xgpt-import-regions, for use from a checkout."""

from xgpt_fairseq.cli.import_regions import main

if __name__ == "__main__":
    main()
