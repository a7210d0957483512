"""README as it is at PyPI (scripts/readme_page.py): with addresses, or without links."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.readme_page import for_pypi

ROOT = Path(__file__).parents[2]
PAGE = """# Ottla

![a picture](docs/a.svg)

See [docs/A.md](docs/A.md#x), [above](#ottla) and [Kafka](https://kafka.apache.org), `[code](x.md)`.

```sh
echo '[a](b)'
```

[License](LICENSE)
"""


def test_links_and_pictures_have_the_address_of_the_repository() -> None:
    assert (
        for_pypi(PAGE, "https://example.org/ottla/")
        == """# Ottla

![a picture](https://example.org/ottla/raw/main/docs/a.svg)

See [docs/A.md](https://example.org/ottla/blob/main/docs/A.md#x), [above](https://example.org/ottla/blob/main/\
README.md#ottla) and [Kafka](https://kafka.apache.org), `[code](x.md)`.

```sh
echo '[a](b)'
```

[License](https://example.org/ottla/blob/main/LICENSE)
"""
    )


def test_without_an_address_nothing_leads_nowhere() -> None:
    assert (
        for_pypi(PAGE, None)
        == """# Ottla


See docs/A.md, above and [Kafka](https://kafka.apache.org), `[code](x.md)`.

```sh
echo '[a](b)'
```

License
"""
    )


def test_no_relative_link_of_the_readme_is_left() -> None:
    text = (ROOT / "README.md").read_text()
    for repository in (None, "https://example.org/ottla"):
        made = re.sub(r"^```.*?^```$", "", for_pypi(text, repository), flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\(([^)]+)\)", made)
        assert all(target.startswith("https://") for target in targets), targets
        assert (len(targets) > 20) is (repository is not None)
