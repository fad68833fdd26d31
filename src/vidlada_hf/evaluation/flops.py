"""Counting floating-point operations: matrix products, convolutions and attention, 2 for a multiply-add.

Element-wise work is not counted. Counts do not depend on what else a machine does, so they can be compared between
machines and tested.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


def count_flops(run: Callable[[], Any]) -> int:
    """The floating-point operations of a call."""
    with flop_counter() as counter:
        run()
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """torch's counter, which by itself would miss attention on the CPU."""
    return FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _cpu_attention_flops},
    )


def _cpu_attention_flops(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    return sdpa_flop_count(query, key, value)


__all__ = ["count_flops", "flop_counter"]
