"""Networks and distributions: encoders, decoders, likelihoods, fusion and bridges."""
