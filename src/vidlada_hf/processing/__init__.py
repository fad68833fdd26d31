"""Files and text to tensors; every module here also travels to the Hub as remote code."""
