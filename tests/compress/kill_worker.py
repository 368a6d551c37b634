"""Runs commands, each in a fork of this process that has its imports already, and kills them at a step of their fit.

Every line of the input is a JSON list: the words after ``lit-compress`` and the step, ``end`` for the end of the
command, or null. The answer is a line with the status of the process, as ``subprocess`` has it.
"""

import importlib
import json
import os
import signal
import sys

from lit_compress.__main__ import main
from lit_compress.callbacks.checkpoint import BestAndLast

for name in ("lit_compress.cli", "lit_compress.commands", "transformers.models.bert.modeling_bert"):
    importlib.import_module(name)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def run(words, killed):
    def at_step(callback, trainer, *_):
        if trainer.global_step == killed:
            die()

    BestAndLast.on_train_batch_start = at_step
    status = main(words)
    if killed == "end":
        die()
    return status


if __name__ == "__main__":
    for line in sys.stdin:
        process = os.fork()
        if not process:
            # The answers go through the output.
            os.dup2(2, 1)
            os._exit(run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
