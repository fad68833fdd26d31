"""`python -m vidlada_hf.training.run` where accelerate uses FSDP without a GPU.

torch's FSDP works over gloo; accelerate reads its FSDP settings only where it finds GPUs.
"""

import sys
from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

from vidlada_hf.training import run

initialize = state.AcceleratorState.__init__


def initialize_sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.fsdp_plugin = fsdp_plugin
        self.distributed_type = state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


if __name__ == "__main__":
    state.AcceleratorState.__init__ = initialize_sharded
    run.main(sys.argv[1])
