"""Put the site together: the README, the guides, the interface, and what is differentiable."""

import base64
import mimetypes
import os
import shutil
import urllib.parse
import warnings
from typing import NamedTuple

import pdoc.render
from markupsafe import Markup
from pygments.formatters import HtmlFormatter

import jax_peig
from tests.docs.shown import NOTEBOOKS, ROOT
from tests.docs.site import api, contract, notebook
from tests.docs.site.markdown import Page

CONTRACT = "differentiability.html"
TEXTS = {  # by the place in the repository
    "README.md": "index.html",
    **{f"notebooks/{path.name}": f"{path.stem}.html" for path in NOTEBOOKS},
    "tests/benchmarks/README.md": "benchmarks.html",
    "jax_peig/README.md": "layout.html",
}

NOTEBOOK_OF = {page: source for source, page in TEXTS.items() if source.endswith(".ipynb")}


class Entry(NamedTuple):
    """A line of the navigation."""

    path: str
    title: str


def links_of(source):
    """Where the links and images of a text lead; one that the site does not hold is a warning."""

    def link(target):
        parts = urllib.parse.urlsplit(target)
        if parts.scheme in ("http", "https", "mailto", "data") or not parts.path:
            return target
        path = os.path.normpath(os.path.join(os.path.dirname(source), parts.path))
        if path in TEXTS and (ROOT / path).is_file():
            return TEXTS[path] + (f"#{parts.fragment}" if parts.fragment else "")
        kind = mimetypes.guess_type(path)[0] or ""
        if kind.startswith("image/") and (ROOT / path).is_file():
            data = base64.b64encode((ROOT / path).read_bytes()).decode()
            return f"data:{kind};base64,{data}"
        warnings.warn(f"{source}: the site does not hold {target}", stacklevel=2)
        return target

    return link


def texts(references):
    """The pages that are written in Markdown or as notebooks, path to `Page`."""

    def reference(code):
        return TEXTS.get(code) or references(code)

    found = {}
    for source, path in TEXTS.items():
        if source.endswith(".ipynb"):
            text = notebook.as_markdown(ROOT / source)
        elif (ROOT / source).is_file():
            text = (ROOT / source).read_text(encoding="utf-8")
        else:
            continue
        found[path] = Page(text, links_of(source), reference)
    found[CONTRACT] = Page(contract.page(), links_of(""), references)
    return found


def navigation(pages, modules):
    """The groups of the navigation, title to entries."""
    guides = [f"{path.stem}.html" for path in NOTEBOOKS]
    about = [path for path in ("benchmarks.html", "layout.html") if path in pages]
    return {
        "": [Entry("index.html", "Overview")],
        "Guides": [Entry(path, pages[path].title) for path in guides],
        "Reference": [
            *(Entry(api.path_of(name), name) for name in modules),
            Entry(CONTRACT, pages[CONTRACT].title),
        ],
        "More": [Entry(path, pages[path].title) for path in about],
    }


def colours():
    """The colours of highlighted code, by day and by night."""
    day, night = (
        HtmlFormatter(style=style, nobackground=True).get_style_defs(".pdoc-code")
        for style in ("default", "github-dark")
    )
    return f"{day}\n@media screen and (prefers-color-scheme: dark) {{\n{night}\n}}"


def build(out):
    """Write the site into the folder ``out``."""
    with api.modules() as modules:
        references = api.References(modules)
        pages = texts(references)
        env = api.environment(references)
        env.globals.update(
            groups=navigation(pages, modules),
            colours=Markup(colours()),
            version=jax_peig.__version__,
            wide=CONTRACT,
        )
        shared = {"all_modules": modules, "root_module_name": None}
        made = {
            path: env.get_template("page.html.jinja2").render(
                page=page,
                here=path,
                root="",
                contents=page.contents,
                notebook=NOTEBOOK_OF.get(path),
                **shared,
            )
            for path, page in pages.items()
        }
        for name, module in modules.items():
            made[api.path_of(name)] = env.get_template("module.html.jinja2").render(
                module=module,
                here=api.path_of(name),
                root="../" * name.count("."),
                contents=api.contents(module),
                **shared,
            )
        made["search.js"] = api.public_types(pdoc.render.search_index(modules))
    for path, text in made.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text, encoding="utf-8")
    for path in NOTEBOOKS:
        (out / "notebooks").mkdir(exist_ok=True)
        shutil.copy(path, out / "notebooks" / path.name)
