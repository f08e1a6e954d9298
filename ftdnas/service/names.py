"""What a name may be that comes over the network: it is part of an address, and of a path here."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._+\-]{0,99}$"
NAME_SAID = "a name has letters, digits, . _ + - and at most 100 of them, the first a letter or digit"
WORD = r"""^[A-Za-z0-9_.,:=()+|~{}" -]{1,400}$"""  # a proxy, a choice of a space, an architecture, an augmentation
