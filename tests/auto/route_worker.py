"""A worker without a model that behaves as ``behaviour.json`` in the model folder says of its runtime.

Keys of a runtime: ``seconds`` per token, ``noise`` (relative, per call), ``peak`` bytes, ``wrong`` (texts that it
classifies wrongly), and ``do`` (a request or workload) with ``then`` (``crash`` or ``hang``). A text is of class 1
where it has the token ``good``, which is number 5. With ``is_score`` a text gets its number of tokens as its score,
0 where it is wrong. ``log`` beside them is a file for every request.
"""

import json
import os
import random
import sys
import time
from pathlib import Path

GOOD = 5


def logits(rows, wrong):
    """Classify rightly, but for the first so many texts."""
    for ids in rows:
        label = int(GOOD in ids) if wrong <= 0 else int(GOOD not in ids)
        wrong -= 1
        yield [1.0 - label, float(label)]


def scores(rows, wrong):
    """Give every text its number of tokens, but the first ones the score 0."""
    for number, ids in enumerate(rows):
        yield [0.0 if number < wrong else float(sum(piece > 0 for piece in ids))]


def main():
    own, wrong, noise, log, runtime = {}, 0, random.Random(os.getpid()), None, None
    for line in sys.stdin:
        request = json.loads(line)
        do, reply = request["do"], {}
        if do == "load":
            behaviour = json.loads((Path(request["folder"]) / "behaviour.json").read_text())
            runtime, log = request["runtime"], behaviour["log"]
            own = behaviour["routes"].get(runtime, {})
            wrong, reply = own.get("wrong", 0), {"device_name": None}
        with Path(log).open("a") as stream:
            stream.write(f"{runtime} {do}\n")
        if own.get("do") == do and own["then"] == "crash":
            sys.exit("the last words of the worker")
        if own.get("do") == do and own["then"] == "hang":
            time.sleep(60)
        if do == "time":
            factor = (1 + request["seed"] % 1000 / 1000) * (1 + own.get("noise", 0) * noise.uniform(-1, 1))
            seconds = [own.get("seconds", 1e-3) * sum(batch) * factor for batch in request["batches"]]
            reply = {"seconds": seconds, "wall_seconds": seconds, "joules": None}
        elif do == "memory":
            used = own.get("peak", 100_000_000)
            reply = {"peak": used, "now": used, "reserved": None}
        elif do == "predict":
            rows = request["batch"]["input_ids"]
            reply = {"logits": list((scores if own.get("is_score") else logits)(rows, wrong))}
            wrong -= len(rows)
        print(json.dumps(reply), flush=True)


main()
