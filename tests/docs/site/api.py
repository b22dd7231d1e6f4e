"""The public modules by pdoc: which names they show, and where the docstrings' references lead."""

import contextlib
import enum
import inspect
import pathlib
import re
import warnings
from unittest.mock import patch

import jinja2
import pdoc.doc
import pdoc.docstrings
import pdoc.render
import pdoc.render_helpers
from markupsafe import Markup

import jax_peig
from tests.docs.shown import PUBLIC_MODULES, public_functions
from tests.docs.site.markdown import docstring_parser

REFERENCE = re.compile(r"(?<!`)`([A-Za-z_][\w.]*)`(?!`)")
# The private modules of a type, in plain text or as highlighted code, whose quotes JSON escapes.
NAME, DOT = r'<span class=\\?"n\\?">', r'<span class=\\?"o\\?">\.</span>'
PRIVATE = re.compile(
    rf"\.jaxlib\._jax\b|{DOT}{NAME}jaxlib</span>{DOT}{NAME}_jax</span>"
    rf"|\bjax_peig\.(?:\w+\.)*_(?:\w+\.)+|{NAME}jax_peig</span>{DOT}(?:{NAME}\w+</span>{DOT})*"
)
DOCTEST = re.compile(r"^>>> .*(?:\n(?!\s*$).+)*", re.MULTILINE)


def shown_names(module):
    """The public names of a module: its classes, and the functions whose docstrings have terms."""
    functions = [name for where, name, _ in public_functions() if where is module]
    classes = [
        name for name, thing in vars(module).items() if inspect.isclass(thing) and name[0] != "_"
    ]
    private = {"Any", "NamedTuple", "Array"}
    return [*functions, *(name for name in classes if name not in private)]


@contextlib.contextmanager
def modules():
    """The public modules as pdoc sees them, name to `pdoc.doc.Module`."""
    with contextlib.ExitStack() as stack:
        for module in PUBLIC_MODULES:
            names = shown_names(module)
            stack.enter_context(patch.object(module, "__all__", names, create=True))
        yield {module.__name__: pdoc.doc.Module(module) for module in PUBLIC_MODULES}


def shown(member):
    """Whether the site shows a member: one with a docstring of its own, or a value of an enum.

    The methods of a method value are for the eigensolvers: its fields stand in its docstring.
    """
    cls = getattr(jax_peig, member.qualname.rpartition(".")[0], None)
    if member.name.startswith("_") or hasattr(cls, "default_max_steps"):
        return False
    if inspect.isclass(cls) and issubclass(cls, enum.Enum) and member.name in cls.__members__:
        return True
    return bool(member.docstring) and not member.docstring.startswith("Alias for field number")


def path_of(name):
    return name.replace(".", "/") + ".html"


class References:
    """Where each public name is described: ``page#fragment``, from the root of the site."""

    def __init__(self, found):
        self.urls, self.members = {name: path_of(name) for name in found}, {}
        for name, module in found.items():
            for member in module.flattened_own_members:
                self._add(name, member)
                for attribute in getattr(member, "own_members", ()):
                    self._add(name, attribute, within=member)

    def _add(self, module, member, within=None):
        documented = within is None or shown(member)
        anchor = member if documented else within
        url = f"{path_of(module)}#{anchor.qualname}"
        short = f"{module}.{member.qualname}".removeprefix("jax_peig.")
        for name in (member.qualname, short, f"jax_peig.{short}"):
            self.urls.setdefault(name, url)
        if within is not None and documented:
            self.members.setdefault(member.name, url)

    def __call__(self, code):
        """The place of a name, perhaps with a call's brackets after it, or None."""
        return self.urls.get(code.partition("(")[0])


def public_types(text):
    """A text of pdoc without the private modules in which a type is defined."""
    return Markup(PRIVATE.sub("", text))


def in_markdown(docstring, references, root):
    """A docstring in NumPy's format as Markdown, its references as links."""
    starred = re.sub(r"^(\*+)(\w+)$", r"\\\1\2", docstring, flags=re.MULTILINE)
    starred = re.sub(r"^\\\*\*(?=\w)", r"\\*\\*", starred, flags=re.MULTILINE)
    text = pdoc.docstrings.convert(starred, "numpy", None)

    def linked(match):
        url = references(match[1]) or references.members.get(match[1])
        if url is None:
            warnings.warn(f"`{match[1]}` is not in the site: {docstring[:60]!r}", stacklevel=2)
        return f"[`{match[1]}`]({root}{url})"

    return DOCTEST.sub(r"```pycon\n\g<0>\n```", REFERENCE.sub(linked, text))


def environment(references):
    """Pdoc's templates, with ours before them."""
    pdoc.render.configure(
        docformat="numpy",
        include_undocumented=False,
        show_source=False,
        template_directory=pathlib.Path(__file__).parent / "templates",
    )
    env, md = pdoc.render.env, docstring_parser()

    @jinja2.pass_context
    def to_markdown(context, docstring):
        return in_markdown(docstring, references, context["root"])

    @jinja2.pass_context
    def linkify(context, code, namespace="", shorten=True):
        return public_types(pdoc.render_helpers.linkify(context, code, namespace, shorten))

    env.filters["linkify"] = linkify
    env.globals["shown"] = shown
    env.filters["to_markdown"] = to_markdown
    env.filters["to_html"] = lambda text: Markup(md.render(text))
    return env


def contents(module):
    """Ids and titles of a module's members."""
    return [(member.qualname, member.qualname) for member in module.flattened_own_members]
