"""How one gets in: passwords, tokens, and the choice of a mechanism.

May touch accounts and net. Part of the library: it asks a person through functions that it is given.
"""
