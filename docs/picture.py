"""The picture of a report in the documents: its head, the verdict with its reasons, and the targets.

    python docs/picture.py experiments/NAME docs/report.png

Needs chromium on the path; Pillow comes with matplotlib.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--hide-scrollbars",
)
WIDTH, HEIGHT, SCALE = 1096, 2400, 1.5
"""CSS pixels: as wide as the page grows, and higher than the verdict; each is 1.5 pixels of the picture."""
MARGIN = 36
"""Pixels that are left below the last line."""
COLOURS = 128
MOST_BYTES = 300_000
_ONLY_THE_VERDICT = "<style>section:not(#verdict) { display: none; }</style></head>"


def photograph(page: Path, chromium: str) -> Image.Image:
    """Return what chromium shows of a report without the sections behind the verdict."""
    with tempfile.TemporaryDirectory() as place:
        cut, shot = Path(place) / "report.html", Path(place) / "report.png"
        cut.write_text(page.read_text(encoding="utf-8").replace("</head>", _ONLY_THE_VERDICT, 1), encoding="utf-8")
        window = (f"--window-size={WIDTH},{HEIGHT}", f"--force-device-scale-factor={SCALE}")
        kept = (f"--user-data-dir={Path(place) / 'profile'}", f"--screenshot={shot}")
        subprocess.run([chromium, *FLAGS, *window, *kept, cut.as_uri()], check=True, capture_output=True, timeout=120)
        with Image.open(shot) as picture:
            return picture.convert("RGB")


def without_blank(picture: Image.Image) -> Image.Image:
    """Return a picture without what is blank below its last line, but for a margin."""
    paper = Image.new("RGB", picture.size, picture.getpixel((0, 0)))
    inked = ImageChops.difference(picture, paper).getbbox()
    bottom = picture.height if inked is None else min(inked[3] + MARGIN, picture.height)
    return picture.crop((0, 0, picture.width, bottom))


def main() -> None:
    """Take the picture and write it; a mistake of the user is told in one line."""
    parser = argparse.ArgumentParser(prog="python docs/picture.py", description="Take the picture of a sweep's report.")
    parser.add_argument("experiment", type=Path, help="folder of the sweep, experiments/NAME")
    parser.add_argument("output", type=Path, help="file to write, docs/report.png")
    args = parser.parse_args()
    page, chromium = args.experiment / "report.html", shutil.which("chromium") or shutil.which("chromium-browser")
    if not page.is_file():
        parser.error(f"{page}: is missing; write it with python -m sentio_rllib.report {args.experiment}")
    if chromium is None:
        parser.error("neither chromium nor chromium-browser is on the path; install Debian's chromium")
    picture = without_blank(photograph(page, chromium))
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(args.output, optimize=True)
    size = args.output.stat().st_size
    if size > MOST_BYTES:
        parser.error(f"{args.output}: {size:,} bytes, allowed are {MOST_BYTES:,}; lower SCALE or COLOURS")
    print(f"wrote {args.output}: {picture.width} x {picture.height}, {size:,} bytes")


if __name__ == "__main__":
    main()
