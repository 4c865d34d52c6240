"""A bundle: folders that become data sets for a notebook without a network."""

from zoo.bundle.contracts import Bundle, BundledFile, BundleTarget, Image, Marker, Part

__all__ = ["Bundle", "BundleTarget", "BundledFile", "Image", "Marker", "Part"]
