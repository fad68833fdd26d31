"""Three twins of `vidlada-tiny` that differ in one thing each: what masked diffusion and full attention are worth.

Their tower and projector are the embedded checkpoint's, frozen; their text models have its shape and begin with the
same random weights. They are trained on the same sequences (`recipe.yaml`) in the same steps:

1. `full`: masked diffusion, everything attends to everything, as VidLaDA does.
2. `causal`: the same, but a token attends to none behind it.
3. `autoregressive`: causal as well, and each token predicts the next one instead of masks.
"""
