"""One process of an evaluation; test_evaluate_devices.py starts one with 8 devices, and two with 4 each.

`python evaluate_run.py DEVICES PROCESSES PROCESS PORT LIST CHECKPOINT OUT` prints one JSON line with the
scores of all videos, the failures by position and the number of hits.
"""

import json
import sys
from pathlib import Path

import jax

from videomae_jax.inference.evaluation.command import Evaluate, evaluate_checkpoint

devices, processes, process, port = map(int, sys.argv[1:5])
jax.config.update("jax_num_cpu_devices", devices)
if processes > 1:
    jax.distributed.initialize(f"localhost:{port}", num_processes=processes, process_id=process)
videos, checkpoint, out = sys.argv[5:]
evaluation = evaluate_checkpoint(
    Evaluate((videos,), checkpoint, num_segments=2, batch_size=16, num_workers=0, out=Path(out))
)
print(
    json.dumps(
        {
            "devices": jax.device_count(),
            "scores": evaluation.scores.tolist(),
            "failures": {position: failure.reason for position, failure in evaluation.failures.items()},
            "top1": evaluation.top1.correct,
        }
    )
)
