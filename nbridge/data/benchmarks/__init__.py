"""Public data sets: digits, MNIST, PolyMNIST and CelebA."""
