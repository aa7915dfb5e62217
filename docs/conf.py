"""How Sphinx and pydoctor build these pages."""

import pathlib
import sys

_root = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(_root))

from udpecho import __version__  # noqa: E402

project = "udpecho"
author = "The udpecho developers"
project_copyright = "2026, The udpecho developers"
release = version = __version__

extensions = ["sphinx.ext.intersphinx", "pydoctor.sphinx_ext.build_apidocs"]
intersphinx_mapping: dict[str, tuple[str, None]] = {}
exclude_patterns = ["_build", "newsfragments"]
html_theme = "furo"
html_title = f"udpecho {__version__}"
html_theme_options = {
    "source_repository": "https://github.com/udpecho/udpecho/",
    "source_branch": "main",
    "source_directory": "docs/",
}

pydoctor_args = [
    "--project-name=udpecho",
    f"--project-version={__version__}",
    f"--project-base-dir={_root}",
    "--docformat=epytext",
    "--privacy=HIDDEN:udpecho._version",
    "--html-output={outdir}/api",
    str(_root / "udpecho"),
]
pydoctor_url_path = "/en/{rtd_version}/api/"
