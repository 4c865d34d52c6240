"""The script that runs in a notebook without a network, and always leaves a whole file.

Its files are copied into a bundle as `job/script` and started there by `python job/script STAGE`, in an image that has none of
this package: the standard library alone, and relative imports.
"""
