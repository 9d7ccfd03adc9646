"""What fairseq gets from the package: importing this module registers its tasks, model and criterions.

It also allows the globals that our checkpoints hold. In fairseq's programs it checks the command line, lets mistakes
end in one line, and leaves out what nobody reads.
"""

import logging
import sys

# fairseq's speech tasks would tell the users of all our programs to install tensorboardX
logging.getLogger("fairseq.tasks.text_to_speech").setLevel(logging.WARNING)

from xgpt_fairseq.errors import DataError, in_one_line
from xgpt_fairseq.programs.names import fairseq_program
from xgpt_fairseq.programs.versions import check_fairseq

try:
    check_fairseq()  # before what needs it is imported; what reports mistakes does
except DataError as error:
    if fairseq_program() is None:
        raise
    sys.exit(f"error: {in_one_line(str(error))}")

from xgpt_fairseq.programs.reporting import report_in_fairseq_programs

report_in_fairseq_programs()

from xgpt_fairseq import checkpoints
from xgpt_fairseq.criterions import xgpt_criterion, xgpt_scst
from xgpt_fairseq.models import xgpt
from xgpt_fairseq.programs.command_line import check_command_line
from xgpt_fairseq.programs.quiet import quieten
from xgpt_fairseq.tasks import xgpt_caption, xgpt_pretrain, xgpt_retrieval, xgpt_text_pretrain

quieten(fairseq_program())
check_command_line(fairseq_program(), sys.argv[1:], architectures=["xgpt", *xgpt.ARCHITECTURES])

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
