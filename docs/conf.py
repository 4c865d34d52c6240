"""Settings of Sphinx for the site; `make docs` runs it on the pages that `scripts/docs_site` gathers."""

from importlib.metadata import version as installed_version

project = "preference-zoo"
version = release = installed_version("preference-zoo")
html_title = f"preference-zoo {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
root_doc = "index"
exclude_patterns = ["LICENSE"]

myst_heading_anchors = 4  # as places that show repositories name headings
smartquotes = False  # options of commands have two dashes
default_role = "code"  # docstrings are markdown: `names` in single backticks
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 72
python_use_unqualified_type_names = True
nitpicky = False  # types of other packages have no page here

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False  # the start page names the licence
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = "$ "
