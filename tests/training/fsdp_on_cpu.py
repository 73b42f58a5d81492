"""`diffretriever train` with FSDP on CPUs, which torch can do and accelerate only offers on GPUs: started by torchrun.

accelerate takes FSDP up where its state says "several GPUs" (AcceleratorState.__init__); this says so. Everything after
that is what runs on GPUs: accelerate's preparation, torch's fully_shard, the collectives (gloo), saving and loading.
Prints what the first block's weights are after a step, so that a test can see that they are spread.
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate import PartialState
from accelerate.utils import DistributedType

from diffretriever_pyserini.cli import main
from diffretriever_pyserini.training import trainer

_arguments = trainer.arguments


def arguments(settings: Any) -> Any:
    made = _arguments(settings)
    assert made.parallel_mode.value == "distributed"  # this joins the processes
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return made


def show(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
    name, weight = next((n, p) for n, p in model.named_parameters() if ".layers.0." in n)
    local = weight.to_local().numel() if hasattr(weight, "to_local") else weight.numel()
    print(f"{type(model).__name__}: {name} is a {type(weight).__name__}, {local} of {weight.numel()} values here")


if __name__ == "__main__":
    trainer.arguments = arguments
    trainer._Epochs.on_step_end = show  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
