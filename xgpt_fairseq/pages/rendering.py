"""HTML pages from the templates of this package."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from xgpt_fairseq.errors import DataError

if TYPE_CHECKING:
    import jinja2


def read_template(name: str) -> str:
    """The text of a file in `templates/`."""
    return (resources.files("xgpt_fairseq.pages") / "templates" / name).read_text(encoding="utf-8")


def policy_hash(source: str) -> str:
    """Names a script or style in a content security policy: the SHA-256 of what stands between its tags, in base64."""
    return base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def template(name: str, *, what: str, script: str = "", style: str | None = None) -> jinja2.Template:
    """Load the template *name*. It escapes text; missing variables are an error.

    Args:
        what: name of the page, for the error if jinja2 is missing.
        script: inserted into the page unescaped, like the style.
        style: None: `gallery.css`.

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
    style = read_template("gallery.css") if style is None else style
    made: jinja2.Template = environment.from_string(
        read_template(name), globals={"style": Markup(style), "script": Markup(script)}
    )
    return made
