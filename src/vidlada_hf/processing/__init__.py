"""Files and text to tensors; every module here also travels to the Hub as remote code."""

import transformers  # noqa: F401  # runs the registration before any module here is half imported
