"""A notebook, with its stored outputs, as one text in Markdown."""

from tests.docs.shown import notebook


def fenced(text, language):
    return f"`````{language}\n{text.rstrip()}\n`````"


def output(out, heading):
    """What a cell printed, or the picture that it drew."""
    if "text" in out:
        return fenced("".join(out["text"]), "output")
    if "image/png" in out["data"]:
        data = "".join("".join(out["data"]["image/png"]).split())
        return f"![{heading}](data:image/png;base64,{data})"
    return fenced("".join(out["data"]["text/plain"]), "output")


def as_markdown(path):
    parts, heading = [], "Figure"
    for cell in notebook(path)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            headings = [line.strip("# ") for line in source.splitlines() if line.startswith("#")]
            heading = (headings or [heading])[-1]
            parts.append(source)
        else:
            parts.append(fenced(source, "python"))
            printed = [out for out in cell["outputs"] if "text" in out]
            if printed:  # one block, as a terminal shows it
                text = "".join("".join(out["text"]) for out in printed)
                parts.append(fenced(text, "output"))
            parts += [output(out, heading) for out in cell["outputs"] if "text" not in out]
    return "\n\n".join(parts)
