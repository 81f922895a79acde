"""The nouns that rooms hand to each other: frozen values; they do no I/O and import no other
room.
"""
