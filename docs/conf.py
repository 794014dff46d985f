"""How Sphinx builds these pages: `make docs`."""

project = "slurminfer"
copyright = "the slurminfer authors, Apache-2.0"
extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
smartquotes = False  # they would turn --flag into a dash
html_theme = "furo"
html_title = "slurminfer"
exclude_patterns = ["_build"]
