"""The network and how it denoises. Every file here also travels to the Hub as remote code."""

import transformers  # noqa: F401  # runs the registration before any module here is half imported
