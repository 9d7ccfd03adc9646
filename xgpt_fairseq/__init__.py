"""XGPT as a fairseq plugin: `fairseq-train --user-dir xgpt_fairseq --task xgpt_caption --arch xgpt_base …`.

Importing the package registers its tasks, model and criterion, and allows the globals that its checkpoints hold.
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
    "errors",
    "xgpt",
    "xgpt_caption",
    "xgpt_criterion",
    "xgpt_pretrain",
    "xgpt_retrieval",
    "xgpt_scst",
    "xgpt_text_pretrain",
]
