"""Trains the run of the page Start and takes the pictures of its report and of the explorer with Chromium.

python docs/build_pictures.py
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By

DOCS = Path(__file__).resolve().parent
PORT = 8765
WIDTH, HEIGHT = 1400, 1000


def main() -> None:
    """Writes docs/pictures/report.png and docs/pictures/explorer.png."""
    spec = re.search(r'```yaml title="digits.yaml"\n(.*?)```', (DOCS / "start.md").read_text(), re.DOTALL)
    assert spec is not None
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"):
        options.add_argument(argument)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "digits.yaml").write_text(spec[1])
        nbridge = [sys.executable, "-m", "nbridge"]
        subprocess.run([*nbridge, "train", "digits.yaml"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        server = subprocess.Popen(
            [*nbridge, "explore", "runs/digits", "--port", str(PORT), "--no-browser"], cwd=folder, stdout=subprocess.DEVNULL
        )
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        try:
            driver.get((folder / "runs" / "digits" / "report.html").as_uri())
            picture(driver, "report")
            wait_for_server(driver)
            picture(driver, "explorer")
        finally:
            driver.quit()
            server.terminate()
            server.wait()


def wait_for_server(driver: webdriver.Chrome) -> None:
    """Opens the explorer once it answers, and gives it time to draw."""
    for _ in range(60):
        time.sleep(0.5)
        try:
            driver.get(f"http://127.0.0.1:{PORT}/")
        except Exception:
            continue
        if driver.find_elements(By.TAG_NAME, "main"):
            break
    time.sleep(4)


def picture(driver: webdriver.Chrome, name: str) -> None:
    """What the window shows, with few colours so that the file is small."""
    path = DOCS / "pictures" / f"{name}.png"
    driver.save_screenshot(str(path))
    with Image.open(path) as taken:
        taken.convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
