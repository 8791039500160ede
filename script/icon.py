"""Draw chat/web/icon.png, for systems that take no icon.svg where the page is installed.

.venv/bin/python script/icon.py
"""

import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.chromium import launch

WEB = Path(__file__).parent.parent / "chat" / "web"
PIXELS = 512
# Systems cut icons to shapes of their own, and keep a circle of 80 % whole.
SHARE = 0.64


def main() -> None:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        page = browser.new_page(viewport={"width": PIXELS, "height": PIXELS})
        svg = (WEB / "icon.svg").read_text()
        page.set_content(f"<body>{svg}</body>")
        page.add_style_tag(
            content=f"""
            body {{ margin: 0; height: 100vh; background: #fff; }}
            body {{ display: grid; place-items: center; }}
            svg {{ width: {SHARE:.0%}; }}
            """
        )
        page.screenshot(path=WEB / "icon.png")
        browser.close()


if __name__ == "__main__":
    main()
