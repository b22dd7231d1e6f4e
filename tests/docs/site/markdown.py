"""Markdown to HTML that needs no script: formulae are MathML, and code is highlighted."""

import html
import itertools
import re
import warnings

import pygments
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline.emphasis import tokenize as emphasis
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

PLAIN = ("", "text", "output", "layers")


def highlighted(code, language, _attributes=""):
    """A block of code; ``output`` is what a block before it printed."""
    kind = " output" if language == "output" else ""
    try:
        lexer = get_lexer_by_name("text" if language in PLAIN else language)
    except ClassNotFound:
        warnings.warn(f"no language {language!r} to highlight", stacklevel=2)
        lexer = get_lexer_by_name("text")
    body = pygments.highlight(code, lexer, HtmlFormatter(nowrap=True))
    return f'<pre class="pdoc-code{kind}"><code>{body}</code></pre>'


def formula(latex, options):
    """A formula as MathML; a command that the converter does not know is a warning."""
    upright = re.sub(r"\\mathrm\{(\w+)\}", r"\\text{\1}", latex)  # the converter sets it slanted
    found = convert(upright, display="block" if options["display_mode"] else "inline")
    if "\\" in found:
        warnings.warn(f"the formula {latex!r} was not understood", stacklevel=2)
    return found


def heading_id(text):
    """As in GitHub's pages: README.md links to its own headings by them."""
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def _parser():
    md = MarkdownIt("commonmark", {"html": False, "highlight": highlighted}).enable("table")
    return md.use(dollarmath_plugin, renderer=formula, double_inline=True)


def docstring_parser():
    """Markdown in which an underscore is one, as in ||X||_F; asterisks emphasise."""
    md = _parser()
    md.inline.ruler.at(
        "emphasis", lambda state, silent: state.src[state.pos] == "*" and emphasis(state, silent)
    )
    return md


def parser():
    """GitHub's Markdown, in which README.md and the guides are written."""
    return _parser().use(anchors_plugin, max_level=3, slug_func=heading_id)


class Page:
    """A text in Markdown as HTML: ``title``, ``contents`` (ids and titles), ``body``.

    ``link(target)`` is where a link or an image of the text leads in the site, and
    ``reference(code)`` where a piece of code does, or None.
    """

    def __init__(self, text, link, reference):
        md = parser()
        tokens = md.parse(text)
        self.contents, self.title = [], None
        for opening, inline in itertools.pairwise(tokens):
            if opening.type == "heading_open":
                name = re.sub(r"[`$*]", "", inline.content)
                if opening.tag == "h1" and self.title is None:
                    self.title = name
                elif opening.tag == "h2":
                    self.contents.append((opening.attrs["id"], name))
        for token in itertools.chain.from_iterable(token.children or () for token in tokens):
            for attribute in {"href", "src"} & set(token.attrs):
                token.attrs[attribute] = link(token.attrs[attribute])
        md.renderer.rules["code_inline"] = _linked_code(reference)
        self.body = md.renderer.render(tokens, md.options, {})


def _linked_code(reference):
    def render(tokens, index, _options, _env):
        code, inside = tokens[index].content, tokens[index - 1].type == "link_open"
        shown = f"<code>{html.escape(code)}</code>"
        url = None if index and inside else reference(code)
        return shown if url is None else f'<a href="{url}">{shown}</a>'

    return render
