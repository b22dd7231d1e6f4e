"""Check a site as a reader without a network meets it: links, fragments, ids, resources."""

import html.parser
import re
import urllib.parse

RESOURCES = {
    "audio": "src", "embed": "src", "iframe": "src", "img": "src", "input": "src",
    "link": "href", "object": "data", "script": "src", "source": "src", "video": "src",
}  # fmt: skip
OUTSIDE = ("http:", "https:", "//")
STYLE = re.compile(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""")


class Reader(html.parser.HTMLParser):
    """The ids, links and resources of one page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.resources = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if RESOURCES.get(tag, "") in values:
            self.resources.append(values[RESOURCES[tag]])
        self.resources += [part.split()[0] for part in values.get("srcset", "").split(",") if part]
        self.resources += STYLE.findall(values.get("style", ""))

    def handle_data(self, data):
        if self.cdata_elem == "style":
            self.resources += STYLE.findall(data)


def problems(root):
    """What is wrong in the site under ``root``, a line for each."""
    pages = {
        path: Reader(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("*.html"))
    }
    found = []
    for path, page in pages.items():
        name = path.relative_to(root)
        found += [
            f"{name}: id {i} twice" for i in sorted({i for i in page.ids if page.ids.count(i) > 1})
        ]
        for url in page.resources:
            if url.startswith(OUTSIDE):
                found.append(f"{name}: {url} is loaded from outside")
            elif not url.startswith(("data:", "#")) and not (path.parent / url).is_file():
                found.append(f"{name}: {url} is missing")
        found += [f"{name}: {why}" for url in page.links if (why := _broken(url, path, pages))]
    return found


def _broken(url, path, pages):
    """Why a link leads nowhere, or None."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme in ("http", "https", "mailto"):
        return None
    if parts.scheme or parts.netloc or url.startswith("/"):
        return f"the link {url} does not stay inside"
    target = (path.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return f"no page {url}"
    fragment = urllib.parse.unquote(parts.fragment)
    if fragment and (target not in pages or fragment not in pages[target].ids):
        return f"no fragment {url}"
    return None
