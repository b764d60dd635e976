"""The layers that `torch.nn` lacks, as trees whose leaves are modules of torch where possible."""
