"""Training on several devices of one machine: one process for each, weights, gradients and states sharded (FSDP2).

``accelerate`` shards (Zhao et al. 2023, arXiv:2304.11277): of every layer each process keeps its part, gathers the
others' when the layer is computed, and updates its part alone. The budget stays the same: the processes share each
batch. The notebook starts them (:mod:`harness.experiment.parallel.launch`), waits, and takes back what was trained.
"""
