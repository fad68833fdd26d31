"""What lmms-eval finds by the entry-point group `lmms_eval.models`."""

from lmms_eval.models.registry_v2 import ModelManifest

_HOME = "vidlada_hf.evaluation.lmms.model"

# The simple class is for tasks that ask for log-likelihoods, which lmms-eval asks no chat model for (`--force_simple`).
MANIFEST = ModelManifest("vidlada", chat_class_path=f"{_HOME}.VidLaDAChat", simple_class_path=f"{_HOME}.VidLaDASimple")

__all__ = ["MANIFEST"]
