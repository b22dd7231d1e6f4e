"""The documentation in a browser: what is wrong in a site is found, and what is right is not.

`.ci/run` builds the whole site, where these tests find their packages, too.
"""

import pytest

from tests.docs.shown import NOTEBOOKS, notebook, public_functions
from tests.docs.site import contract
from tests.docs.site.links import problems
from tests.docs.site.notebook import as_markdown

GOOD = """<html><head><style>a { background: url(data:x) }</style></head><body>
<h1 id="top">A</h1> <a href="#top">up</a> <a href="sub/b.html#there">b</a>
<a href="https://arxiv.org/abs/2011.04366">a paper</a> <img src="data:image/png;base64,AA==">
<script src="s.js"></script></body></html>"""


@pytest.fixture
def site(tmp_path):
    """A small site without faults."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "s.js").write_text("")
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "sub" / "b.html").write_text('<p id="there"><a href="../a.html">a</a></p>')
    return tmp_path


def test_a_good_site(site):
    assert problems(site) == []


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ('<a href="c.html">', "no page c.html"),
        ('<a href="sub/b.html#here">', "no fragment sub/b.html#here"),
        ('<a href="#here">', "no fragment #here"),
        ('<a href="/a.html">', "does not stay inside"),
        ('<a href="javascript:f()">', "does not stay inside"),
        ('<p id="top">', "id top twice"),
        ('<img src="c.png">', "c.png is missing"),
        ('<script src="https://cdn.example/s.js"></script>', "loaded from outside"),
        ('<link rel="stylesheet" href="//cdn.example/s.css">', "loaded from outside"),
        ('<img srcset="s.js 1x, http://cdn.example/c.png 2x">', "loaded from outside"),
        ('<style>@import "https://cdn.example/s.css";</style>', "loaded from outside"),
        ('<p style="background: url(https://cdn.example/c.png)">', "loaded from outside"),
    ],
)
def test_a_fault_is_found(site, fault, found):
    (site / "a.html").write_text(GOOD + fault)
    (problem,) = problems(site)
    assert problem.startswith("a.html: ")
    assert found in problem


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_guide_holds_its_cells_and_outputs(path):
    text = as_markdown(path)
    outputs = [out for cell in notebook(path)["cells"] for out in cell.get("outputs", ())]
    assert text.count("](data:image/png;base64,") == sum(
        "image/png" in o.get("data", {}) for o in outputs
    )
    for cell in notebook(path)["cells"]:
        assert "".join(cell["source"]) in text
    for out in outputs:
        assert "".join(out.get("text", "")).rstrip() in text


def test_the_table_has_all_functions():
    page = contract.page()
    for _, name, function in public_functions():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.count(" | ") == len(contract.ENTRIES)
        assert contract.terms(function.__doc__)["Orders"] in row


@pytest.mark.slow
class TestRendering:
    """Where the packages of the extra ``docs`` are installed."""

    @pytest.fixture
    def markdown(self):
        for package in ("pdoc", "markdown_it", "mdit_py_plugins", "latex2mathml", "pygments"):
            pytest.importorskip(package)
        from tests.docs.site import markdown

        return markdown

    def page(self, markdown, text):
        return markdown.Page(text, lambda target: target, {"f": "g.html#f"}.get)

    def test_page(self, markdown):
        page = self.page(markdown, "# A `b`\n\n## It's c\n\n`f` and $x_1$\n\n```output\n1\n```\n")
        assert page.title == "A b"
        assert page.contents == [("its-c", "It's c")]
        assert '<a href="g.html#f"><code>f</code></a>' in page.body
        assert "<math" in page.body
        assert '<pre class="pdoc-code output"><code>1\n</code></pre>' in page.body

    @pytest.mark.parametrize("text", ["$\\unknown$", "$$\\unknown x$$", "```unknown\n```"])
    def test_what_is_not_understood_is_a_warning(self, markdown, text):
        with pytest.warns(UserWarning, match="unknown"):
            self.page(markdown, text)

    def test_an_underscore_in_a_docstring_is_one(self, markdown):
        assert markdown.docstring_parser().render("*a* |X|_F^2 + |X|_*, _b_") == (
            "<p><em>a</em> |X|_F^2 + |X|_*, _b_</p>\n"
        )

    def test_a_file_that_the_site_does_not_hold_is_a_warning(self, markdown):
        from tests.docs.site.build import links_of

        link = links_of("notebooks/01_first_steps.ipynb")
        assert link("../README.md#what-it-costs") == "index.html#what-it-costs"
        assert link("https://arxiv.org") == "https://arxiv.org"
        with pytest.warns(UserWarning, match="does not hold"):
            link("02_nothing.ipynb")

    def test_a_reference_that_leads_nowhere_is_a_warning(self, markdown):
        from tests.docs.site import api

        with api.modules() as found:
            references = api.References(found)
        assert references("partial_eigh") == "jax_peig.html#partial_eigh"
        assert references("bounds.weyl_bounds") == "jax_peig/bounds.html#weyl_bounds"
        linked = api.in_markdown("See `fourier`.\n\n>>> 1\n1\n", references, "../")
        assert "[`fourier`](../jax_peig/preconditioners.html#fourier)" in linked
        assert "```pycon\n>>> 1\n1\n```" in linked
        with pytest.warns(UserWarning, match="not in the site"):
            api.in_markdown("See `nothing`.", references, "")
