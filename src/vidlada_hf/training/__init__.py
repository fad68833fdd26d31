"""Learning: what a batch is made of, what is labeled, and how it is run on the Trainer of transformers."""
