"""A program for torchrun: `diffretriever train` with FSDP on CPUs, which torch supports and accelerate does not.

accelerate enables FSDP where its state says "several GPUs" (AcceleratorState.__init__), so this program sets that
state. The rest is the code that runs on GPUs: accelerate's preparation, torch's fully_shard, the collectives (gloo),
saving and loading. It prints the type of the first block's weights after a step, so that a test sees them sharded.
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
    training_arguments = _arguments(settings)
    assert training_arguments.parallel_mode.value == "distributed"  # this joins the processes
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    return training_arguments


def show(self: Any, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
    name, weight = next((n, p) for n, p in model.named_parameters() if ".layers.0." in n)
    local = weight.to_local().numel() if hasattr(weight, "to_local") else weight.numel()
    print(f"{type(model).__name__}: {name} is a {type(weight).__name__}, {local} of {weight.numel()} values here")


if __name__ == "__main__":
    trainer.arguments = arguments
    trainer._Epochs.on_step_end = show  # type: ignore[method-assign]
    sys.exit(main(sys.argv[1:]))
