"""Fuzzers: valid inputs are damaged at random and given to nbridge, which accepts them or refuses them in a line.

``python -m tests.fuzz --cases 100000`` from the root of the repository runs many cases and prints a table. Each kind of input is a module
with a function ``case(rng, folder)``, which writes one damaged input to an empty folder and uses it; what all cases share is in
``folder.parent``. A case is a number: the same number with the same seed is the same case.
"""
