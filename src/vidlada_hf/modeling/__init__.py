"""The network and how it denoises. Every file here also travels to the Hub as remote code."""
