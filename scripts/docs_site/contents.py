"""The order of the site's pages. A page that is in no section stops the build."""

from __future__ import annotations

SECTIONS = {
    "": ("Start <self>", "concepts"),
    "Tutorials": ("notebooks/01-first-plan", "notebooks/02-train-and-compare", "notebooks/03-competition-day"),
    "How to": (
        "new-model",
        "competition-day",
        "bundle-script",
        "other-competitions",
        "battles",
        "tables",
        "data",
        "generate",
        "training",
        "input-length",
        "quantization",
        "scale",
        "insight",
        "shift",
        "home",
        "remote",
        "security",
    ),
    "Reference": (
        "reference/zoo",
        "reference/ensemble",
        "python",
        "reference/api",
        "reference/entry",
        "reference/target",
        "reference/recipe",
        "metrics",
        "architecture",
    ),
    "Answers": ("faq", "comparison", "measured"),
    "Project": ("CHANGELOG", "CONTRIBUTING"),
}
MEASURED = """# What was measured

Scripts, machines, dates and figures. Whatever a page of this site says in numbers comes from here.

"""
MEASURED_SECTIONS = {
    "Speed and memory": "benchmarks/*.md",
    "Ensembles": "benchmarks/results/*.md",
    "Experiments": "experiments/*/NOTES.md",
}


def tables_of_contents() -> str:
    """The site's sections, as the first page has them: not shown there, but in the sidebar."""
    return "".join(_toctree(pages, caption) for caption, pages in SECTIONS.items())


def measured_page(found: dict[str, list[str]]) -> str:
    """The page of measurements, by section; names are those of pages without their ending."""
    return MEASURED + "".join(f"## {section}\n\n" + _toctree(pages, "", shown=True) for section, pages in found.items())


def _toctree(pages: tuple[str, ...] | list[str], caption: str, *, shown: bool = False) -> str:
    options = ([f":caption: {caption}"] if caption else []) + ([":maxdepth: 1"] if shown else [":hidden:"])
    return "\n".join(["```{toctree}", *options, "", *pages, "```", "", ""])
