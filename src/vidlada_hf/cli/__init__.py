"""The command `vidlada`, a file a group of commands. Each reads its arguments and calls the module that does the work.

torch and transformers are imported inside the commands, so that `vidlada --help` answers at once.
"""

from . import ask, batch, bench, demo, evaluate, hub, page, plan, schedule, train  # noqa: F401  # each adds its commands
from .common import app

__all__ = ["app"]
