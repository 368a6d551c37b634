"""A worker without a model: speaks the protocol and behaves as ``behaviour.json`` in the folder says.

Keys: ``seconds`` per token, ``noise`` (relative, per call), ``labels`` (outputs; always predicts class 0), ``peak``
and ``leak`` (bytes, and bytes more per round), ``joules`` per text, ``log`` (a file for every request), and ``do``
(name of a request or workload) with ``then`` (what happens at it: ``crash``, ``hang``, ``kill``, ``fail``, ``hog``)
after ``rounds`` good ones. Without that file a model takes 1 ms per layer and token.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path


def misbehave(then):
    if then == "crash":
        sys.exit("the last words of the worker")
    if then == "hang":
        time.sleep(60)
    if then == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if then == "hog":
        hoard = []
        while True:
            hoard.append(bytearray(b"x" * 10_000_000))
            time.sleep(0.01)
    return {"error": "RuntimeError: it did not work"}


def behaviour_of(folder):
    file = folder / "behaviour.json"
    if file.exists():
        return json.loads(file.read_text())
    config = json.loads((folder / "config.json").read_text())
    labels = len(config.get("id2label", "ab"))
    return {"name": folder.name, "seconds": 1e-3 * config["num_hidden_layers"], "labels": labels}


def times(behaviour, request, noise):
    # The machine gets slower all the time; the seed tells every model of a round the same slowness.
    slow = 1 + (request["seed"] % 1000) / 1000
    per_token = behaviour.get("seconds", 1e-3) * slow
    spread = behaviour.get("noise", 0)
    return [per_token * sum(batch) * (1 + spread * noise.gauss(0, 1)) for batch in request["batches"]]


def reply_to(request, behaviour, seen, noise):
    do = request["do"]
    if do == "load":
        return {"device_name": "Fake GPU" if request["device"] == "cuda" else None}
    if do == "time":
        seconds = times(behaviour, request, noise)
        joules = behaviour.get("joules")
        texts = sum(map(len, request["batches"]))
        return {
            "seconds": seconds,
            "wall_seconds": [2 * one for one in seconds],
            "joules": None if joules is None else joules * texts,
        }
    if do == "memory":
        used = behaviour.get("peak", 1_000_000) + behaviour.get("leak", 0) * seen["memory"]
        return {"peak": used, "now": used, "reserved": 2 * used if behaviour.get("gpu") else None}
    rows = len(request["batch"]["input_ids"])
    return {"logits": [[1.0] + [0.0] * (behaviour.get("labels", 2) - 1)] * rows}


def draw(folder):
    """Return noise of its own for each worker of a folder, the same in every run of a test."""
    number = 0
    while True:
        try:
            (folder / f"started.{number}").touch(exist_ok=False)
        except FileExistsError:
            number += 1
        else:
            return random.Random(number)


def main():
    behaviour, seen, noise = {}, {}, random.Random()
    for line in sys.stdin:
        request = json.loads(line)
        do = request.get("workload", request["do"])
        if do == "load":
            behaviour = behaviour_of(Path(request["folder"]))
            if behaviour.get("noise"):
                noise = draw(Path(request["folder"]))
            behaviour["gpu"] = request["device"] == "cuda"
            # The runtime named "torch-bf16" is twice as fast as the others.
            behaviour["seconds"] = behaviour.get("seconds", 1e-3) / (1 + (request["runtime"] == "torch-bf16"))
        if "log" in behaviour:
            with Path(behaviour["log"]).open("a") as stream:
                stream.write(f"{behaviour['name']} {do}\n")
        seen[do] = seen.get(do, 0) + 1
        if behaviour.get("do") == do and seen[do] > behaviour.get("rounds", 0):
            reply = misbehave(behaviour["then"])
        else:
            reply = reply_to(request, behaviour, seen, noise)
        print(json.dumps(reply), flush=True)


main()
