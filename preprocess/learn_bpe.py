#!/usr/bin/env python
"""The program xgpt-learn-bpe, for use from a checkout."""

from xgpt_fairseq.cli.learn_bpe import main

if __name__ == "__main__":
    main()
