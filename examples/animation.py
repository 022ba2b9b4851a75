"""Make docs/images/animation.webp: ten seconds of collecting judgements, training and the report.

    python examples/animation.py docs/images/animation.webp

It needs selenium, and Debian's packages chromium and chromium-driver. The flowers are drawn here.
The answers that the film shows are given in a browser; 900 more are made by the same rule (the
flower whose number of petals is nearer to the one in the middle) and imported, so that there is
something to learn. The report is about other flowers.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from selenium import webdriver

N_FLOWERS, N_NEW, SIDE_PX = 72, 48, 320
N_ANSWERS, N_QUESTIONS, N_SHOWN = 900, 400, 3
PAGE_PX, FRAME_PX, HEAD_PX = (1000, 640), (800, 512), 40
PAPER, INK = "#0d1117", "#f0f6fc"
FONTS = Path(matplotlib.get_data_path(), "fonts", "ttf")


def draw_flower(rng: np.random.Generator, petals: int) -> Image.Image:
    """Return a flower with a number of petals; all else about it is chance."""
    image = Image.new("RGB", (2 * SIDE_PX, 2 * SIDE_PX), tuple(rng.integers(225, 250, 3).tolist()))
    draw = ImageDraw.Draw(image)
    angle = np.linspace(0, 2 * np.pi, 721)
    length, depth = rng.uniform(0.62, 0.9), rng.uniform(0.45, 0.62)
    radius = length * (1 - depth + depth * np.abs(np.cos(petals * angle / 2)) ** 0.7)
    turn = rng.uniform(0, 2 * np.pi)
    points = np.stack([radius * np.cos(angle + turn), radius * np.sin(angle + turn)], axis=1)
    hue = int(rng.choice([*range(0, 35), *range(190, 255)]))
    colour = Image.new("HSV", (1, 1), (hue, int(rng.integers(110, 220)), 225)).convert("RGB")
    petal = colour.getpixel((0, 0))
    draw.polygon([tuple(point) for point in SIDE_PX * (1 + points)], petal, "#5b3a4a", 5)
    heart = SIDE_PX * rng.uniform(0.14, 0.24)
    draw.ellipse([SIDE_PX - heart, SIDE_PX - heart, SIDE_PX + heart, SIDE_PX + heart], "#f2c744")
    return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def write_flowers(folder: Path, n: int, seed: int) -> dict[str, int]:
    """Write flowers; return how many petals each has."""
    rng = np.random.default_rng(seed)
    petals = {f"{folder.name}-{number:02}.png": int(rng.integers(3, 10)) for number in range(n)}
    folder.mkdir()
    for name, n_petals in petals.items():
        draw_flower(rng, n_petals).save(folder / name)
    return petals


def write_answers(path: Path, petals: dict[str, int], n: int) -> None:
    """Write judgements by the rule."""
    rng, names, lines = np.random.default_rng(8), list(petals), ["anchor,positive,negative"]
    while len(lines) <= n:
        anchor, *others = rng.choice(names, 3, replace=False).tolist()
        near, far = sorted(others, key=lambda name: abs(petals[name] - petals[anchor]))
        if abs(petals[near] - petals[anchor]) < abs(petals[far] - petals[anchor]):
            lines.append(f"{anchor},{near},{far}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Film:
    """Frames and how long each is shown."""

    def __init__(self) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in ("headless=new", "no-sandbox", "hide-scrollbars", "force-color-profile=srgb"):
            options.add_argument(f"--{flag}")
        self.driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        width, height = PAGE_PX
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        self.frames: list[Image.Image] = []
        self.times_ms: list[int] = []

    def add(self, command: str, picture: Image.Image, time_ms: int) -> None:
        """Add a picture below the command that it belongs to."""
        frame = Image.new("RGB", (FRAME_PX[0], HEAD_PX + FRAME_PX[1]), PAPER)
        font = ImageFont.truetype(FONTS / "DejaVuSansMono.ttf", 18)
        ImageDraw.Draw(frame).text((14, HEAD_PX // 2), f"$ {command}", INK, font, "lm")
        frame.paste(picture.resize(FRAME_PX, Image.Resampling.LANCZOS), (0, HEAD_PX))
        self.frames.append(frame)
        self.times_ms.append(time_ms)

    def shoot(self, command: str, time_ms: int, pointer: str | None = None) -> None:
        """Add the page as it is, with a pointer on an element."""
        path = Path(tempfile.gettempdir(), "tripletkit-frame.png")
        self.driver.save_screenshot(str(path))
        with Image.open(path) as image:
            picture = image.convert("RGB")
        path.unlink()
        if pointer is not None:
            box = self.driver.execute_script(
                "const box = document.getElementById(arguments[0]).getBoundingClientRect();"
                "return [box.x + box.width * 0.6, box.y + box.height * 0.55]",
                pointer,
            )
            arrow = np.array([(0, 0), (0, 30), (8, 23), (14, 36), (19, 34), (13, 21), (23, 21)])
            ImageDraw.Draw(picture).polygon(
                [tuple(point) for point in 1.2 * arrow + box], "white", "black", 2
            )
        self.add(command, picture, time_ms)

    def show_text(self, command: str, text: str, time_ms: int) -> None:
        """Add what a command printed."""
        picture = Image.new("RGB", PAGE_PX, PAPER)
        font = ImageFont.truetype(FONTS / "DejaVuSansMono.ttf", 21)
        wrapped = [
            part
            for line in text.splitlines()
            for part in textwrap.wrap(line, 76, replace_whitespace=False) or [""]
        ]
        shown = "\n".join(line.replace("\t", "  ") for line in wrapped)
        ImageDraw.Draw(picture).multiline_text((18, 22), shown, INK, font, spacing=11)
        self.add(command, picture, time_ms)

    def write(self, path: Path) -> None:
        """Write the film, which begins anew at its end."""
        first, *others = self.frames
        first.save(
            path, save_all=True, append_images=others, duration=self.times_ms, loop=0,
            quality=70, method=6, minimize_size=True,
        )  # fmt: skip
        seconds, size = sum(self.times_ms) / 1000, path.stat().st_size
        print(f"Wrote {path}: {len(self.frames)} frames, {seconds:.1f} s, {size:,} bytes.")


def run(folder: Path, *words: str) -> str:
    """Run tripletkit in a folder, and return what it prints."""
    command = [sys.executable, "-m", "tripletkit", *words]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def read_links(server: subprocess.Popen[str]) -> Iterator[tuple[str, str]]:
    """Yield whom a link of a server is for, and the link."""
    assert server.stdout is not None
    for line in server.stdout:
        if found := re.fullmatch(r"(.+?)  +(http://\S+)\n", line):
            yield found[1], found[2]
            if found[1] == "owner":
                return


def film_collecting(film: Film, folder: Path, petals: dict[str, int]) -> None:
    """Answer a few questions in a browser, and show the owner's page."""
    said = "tripletkit collect flowers/ --judge anna"
    run(folder, "collect", "flowers", "--import", "answers.csv", "--db", "judgements.sqlite")
    words = [*said.split()[1:], "--db", "judgements.sqlite", "--ask", "random", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "tripletkit", *words, "--no-browser"],
        cwd=folder, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        try:
            links = dict(read_links(server))
            driver = film.driver
            driver.get(links["anna"])
            driver.find_element("id", "begin").click()
            for _ in range(N_SHOWN):
                time.sleep(1)
                film.shoot(said, 600)
                side = find_nearer(folder / "flowers", driver, petals)
                film.shoot(said, 450, side)
                driver.find_element("id", side).click()
            time.sleep(1)
            driver.get(links["owner"])
            time.sleep(1)
            film.shoot(said, 1200)
        finally:
            server.terminate()


def find_nearer(flowers: Path, driver: webdriver.Chrome, petals: dict[str, int]) -> str:
    """Return the side of the question whose flower the rule says is nearer."""
    script = """
        const canvas = document.createElement("canvas").getContext("2d");
        return ["#anchor", "#left img", "#right img"].map((place) => {
            canvas.drawImage(document.querySelector(place), 0, 0, 16, 16);
            return [...canvas.getImageData(0, 0, 16, 16).data];
        })"""
    names = list(petals)
    known = np.stack([thumbnail(flowers / name) for name in names])
    seen = np.array(driver.execute_script(script), float).reshape(3, 256, 4)[..., :3]
    numbers = [petals[names[np.abs(known - each.ravel()).sum(axis=1).argmin()]] for each in seen]
    anchor, left, right = numbers
    return "left" if abs(left - anchor) <= abs(right - anchor) else "right"


def thumbnail(path: Path) -> np.ndarray:
    """Return a flower in 16 x 16 pixels, flat."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((16, 16)), float).ravel()


def main(output: str) -> None:
    """Draw, collect, train, report, and write the film."""
    film = Film()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        petals = write_flowers(folder / "flowers", N_FLOWERS, 7)
        write_answers(folder / "answers.csv", petals, N_ANSWERS)
        write_answers(folder / "test.csv", write_flowers(folder / "new", N_NEW, 9), N_QUESTIONS)
        film_collecting(film, folder, petals)
        run(folder, "export-judgements", "judgements.sqlite", "-o", "export")
        said = "tripletkit train export/train.txt flowers/ --recipe map"
        # The first table, of images that were held out.
        film.show_text(said, run(folder, *said.split()[1:]).partition("\npart")[0], 1600)
        said = "tripletkit report tripletkit-model --triplets test.csv --images new/"
        run(folder, *said.split()[1:])
        film.driver.get((folder / "report.html").as_uri())
        for place in ("h1", "#distances", "#triplets", ".map", "#neighbors"):
            film.driver.execute_script(
                "document.querySelector(arguments[0]).scrollIntoView({block: arguments[1]})",
                place,
                "center" if place == ".map" else "start",
            )
            time.sleep(0.5)
            film.shoot(said, 850)
        film.driver.quit()
    film.write(Path(output))


if __name__ == "__main__":
    main(*sys.argv[1:])
