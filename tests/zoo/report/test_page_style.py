"""The style of all pages: what dark mode changes, paper changes back."""

from __future__ import annotations

import re

from zoo.report.page import STYLE


def test_paper_has_no_colour_of_the_dark_mode() -> None:
    """A page that is printed where the screen is dark: pale letters on white could not be read."""
    dark, printed = (re.search(rf"@media {medium} {{ :root {{([^}}]*)", STYLE) for medium in (r"\(prefers[^)]*\)", "print"))
    assert dark and printed
    names = {name for name in re.findall(r"--[a-z]+", dark.group(1))}
    assert len(names) > 5 and names <= set(re.findall(r"--[a-z]+", printed.group(1)))
