#!/usr/bin/env python
"""The program xgpt-prepare-captions, for use from a checkout."""

from xgpt_fairseq.cli.prepare_captions import main

if __name__ == "__main__":
    main()
