"""Devices, precision, compilation and distributed training, applied from outside: models never mention them."""
