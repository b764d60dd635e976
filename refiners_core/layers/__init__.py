"""What `torch.nn` lacks, said as trees; leaves are its own modules wherever it has them."""
