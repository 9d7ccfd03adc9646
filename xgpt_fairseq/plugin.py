"""What fairseq gets from the package: importing this module registers its tasks, model and criterions.

It also allows the globals that our checkpoints hold, and lets fairseq's programs report errors as ours do.
"""

import logging

# fairseq's speech tasks would tell the users of all our programs to install tensorboardX
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from xgpt_fairseq import checkpoints, errors
from xgpt_fairseq.criterions import xgpt_criterion, xgpt_scst
from xgpt_fairseq.models import xgpt
from xgpt_fairseq.tasks import xgpt_caption, xgpt_pretrain, xgpt_retrieval, xgpt_text_pretrain

errors.report_in_fairseq_programs()

__all__ = [
    "checkpoints",
    "xgpt",
    "xgpt_caption",
    "xgpt_criterion",
    "xgpt_pretrain",
    "xgpt_retrieval",
    "xgpt_scst",
    "xgpt_text_pretrain",
]
