"""HTML pages from the templates of this package."""

from __future__ import annotations

from importlib import resources
from typing import TYPE_CHECKING

from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    import jinja2


def read_template(name: str) -> str:
    """The text of a file in `templates/`."""
    return (resources.files("xgpt_fairseq.pages") / "templates" / name).read_text(encoding="utf-8")


def template(name: str, *, what: str, script: str = "") -> jinja2.Template:
    """Load the template *name*. It escapes text; missing variables are an error.

    Args:
        what: name of the page, for the error if jinja2 is missing.
        script: inserted into the page unescaped, like the style.

    Raises:
        DataError: jinja2 is not installed.
    """
    try:
        import jinja2
        from markupsafe import Markup
    except ImportError:
        raise DataError(f'{what} needs jinja2: pip install "xgpt-fairseq[report]"') from None
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["hundredfold"] = lambda value: f"{100 * value:.1f}"
    made: jinja2.Template = environment.from_string(
        read_template(name), globals={"style": Markup(read_template("gallery.css")), "script": Markup(script)}
    )
    return made
