"""A worker without a model: speaks the protocol and behaves as ``behaviour.json`` in the folder says.

Keys: ``seconds`` per token, ``params``, ``do`` (name of a request) with ``then`` (what happens at it:
``crash``, ``hang``, ``kill``, ``fail``) after ``rounds`` good ones, and ``log`` (a file for every request).
Without that file a model takes 1 ms per layer and token.
"""

import json
import os
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
    return {"error": "RuntimeError: it did not work"}


def behaviour_of(folder):
    file = folder / "behaviour.json"
    if file.exists():
        return json.loads(file.read_text())
    layers = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    return {"name": folder.name, "seconds": 1e-3 * layers}


def main():
    behaviour, seen = {}, {}
    for line in sys.stdin:
        request = json.loads(line)
        do = request["do"]
        if do == "load":
            behaviour = behaviour_of(Path(request["folder"]))
        if "log" in behaviour:
            with Path(behaviour["log"]).open("a") as stream:
                stream.write(f"{Path(request['folder']).name if do == 'load' else behaviour['name']} {do}\n")
        seen[do] = seen.get(do, 0) + 1
        if behaviour.get("do") == do and seen[do] > behaviour.get("rounds", 0):
            print(json.dumps(misbehave(behaviour["then"])), flush=True)
            continue
        # The machine gets slower all the time; the seed tells every model of a round the same slowness.
        slow = 1 + (request.get("seed", 0) % 1000) / 1000
        per_token = behaviour.get("seconds", 1e-3) * slow
        lengths = request.get("lengths", [])
        replies = {
            "load": {
                "params": behaviour.get("params", 10),
                "shape": {"layers": 2, "hidden": 8},
                "device_name": None,
            },
            "latency": {
                "seconds": [per_token * n for n in lengths],
                "wall_seconds": [2 * per_token * n for n in lengths],
            },
            "throughput": {"seconds": [per_token * sum(lengths)], "wall_seconds": [0.0]},
            "memory": {"peak_bytes": behaviour.get("peak_bytes", 1_000_000)},
        }
        if request.get("device") == "cuda":
            replies["load"]["device_name"] = "Fake GPU"
        print(json.dumps(replies[do]), flush=True)


main()
