"""Training on several devices of one machine: one process each; weights, gradients and states sharded (FSDP2).

``accelerate`` does the sharding (Zhao et al. 2023, arXiv:2304.11277). Each process keeps its part of every layer,
gathers the other parts when it computes the layer, and updates its own part alone. The budget stays the same: the
processes share each batch. The notebook starts them (:mod:`harness.experiment.parallel.launch`), waits, and takes back
the trained parameters.
"""
