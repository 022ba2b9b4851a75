"use strict";

const images = JSON.parse(document.getElementById("images").textContent);
for (const image of document.querySelectorAll("img[data-image]")) {
  image.src = images[image.dataset.image];
}

// Sorting: each heading becomes a button.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent.trim();
    button.addEventListener("click", () => sortTable(table, headings, column));
    heading.replaceChildren(button);
  });
}

function sortTable(table, headings, column) {
  const isDown = headings[column].getAttribute("aria-sort") === "ascending";
  headings.forEach((heading) => heading.removeAttribute("aria-sort"));
  headings[column].setAttribute("aria-sort", isDown ? "descending" : "ascending");
  const valueOf = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  // Each set of rows by itself; the row that names a set stays its first.
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("set"));
    const valued = rows.map((row) => [valueOf(row), row]);
    const isNumeric = valued.every(([value]) => value !== "" && !Number.isNaN(Number(value)));
    valued.sort(([a], [b]) => (isNumeric ? a - b : a.localeCompare(b)) * (isDown ? -1 : 1));
    body.append(...valued.map(([, row]) => row));
  }
  filterRows();
}

// Filtering: by words, by kind, and by an image or a pair that mistakes share.
const text = document.getElementById("filter-text");
const kind = document.getElementById("filter-kind");
const said = document.getElementById("filter-said");
const rows = [...document.querySelectorAll("#triplet-table tbody tr")];
const words = new Map(rows.map((row) => [row, wordsOf(row)]));
const firstRows = 12;
const more = document.getElementById("show-more");
let shared = null;
let isWhole = false;

function wordsOf(row) {
  const names = [...row.querySelectorAll(".name")].map((name) => name.textContent);
  return names.join(" ").toLowerCase();
}

function filterRows() {
  const wanted = text.value.trim().toLowerCase();
  let nShown = 0;
  let nFound = 0;
  // In the order of the table, which sorting changes.
  for (const row of document.querySelectorAll("#triplet-table tbody tr")) {
    const isFound =
      words.get(row).includes(wanted) &&
      (!kind.value || row.dataset.kind === kind.value) &&
      (!shared || row.dataset[shared.what].includes(` ${shared.key} `));
    nFound += isFound;
    row.hidden = !isFound || (!isWhole && nFound > firstRows);
    nShown += !row.hidden;
  }
  const about = shared ? ` with ${shared.name}` : "";
  said.textContent = `${nFound} of ${rows.length} found${about}`;
  more.hidden = nShown === nFound;
  more.textContent = `Show ${nFound - nShown} more`;
}

function showShared(button) {
  const { showImage, showPair, name } = button.dataset;
  shared = showPair
    ? { what: "pairs", key: showPair, name }
    : { what: "images", key: showImage, name };
  filterRows();
  document.querySelector(".filter").scrollIntoView();
}

more.addEventListener("click", () => {
  isWhole = true;
  filterRows();
});
text.addEventListener("input", filterRows);
kind.addEventListener("change", filterRows);
document.querySelector(".filter").addEventListener("submit", (event) => event.preventDefault());
document.getElementById("filter-clear").addEventListener("click", () => {
  shared = null;
  text.value = kind.value = "";
  filterRows();
});
for (const button of document.querySelectorAll("[data-show-image], [data-show-pair]")) {
  button.addEventListener("click", () => showShared(button));
}
filterRows();

// The rows are kept compressed in the page.
const download = document.getElementById("download");
download?.addEventListener("click", async () => {
  const packed = JSON.parse(document.getElementById("rows").textContent).split(",")[1];
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const csv = new Blob([await new Response(stream).arrayBuffer()], { type: "text/csv" });
  const link = document.createElement("a");
  link.href = URL.createObjectURL(csv);
  link.download = download.dataset.name;
  link.click();
  URL.revokeObjectURL(link.href);
});

// What is wider than its place says so.
const sayItScrolls = (place) => {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "↔ There is more at the side: scroll.";
  hint.hidden = true;
  place.after(hint);
  const look = () => {
    const hidden = place.scrollWidth - place.clientWidth;
    hint.hidden = hidden < 2;
    place.classList.toggle("more-left", hidden > 1 && place.scrollLeft > 1);
    place.classList.toggle("more-right", hidden > 1 && place.scrollLeft < hidden - 1);
  };
  place.addEventListener("scroll", look, { passive: true });
  // What is folded away has no size to watch.
  place.closest("details")?.addEventListener("toggle", look);
  const watch = new ResizeObserver(look);
  for (const each of [place, ...place.children]) watch.observe(each);
};
for (const place of document.querySelectorAll(".scroll")) sayItScrolls(place);

// The map: zoom by buttons, keys, a double click, Ctrl and the wheel, or two fingers.
const mostZoom = 16;

class ZoomedMap {
  constructor(map) {
    this.map = map;
    this.plane = map.querySelector(".plane");
    this.zoom = 1;
    this.x = this.y = 0;
    this.pointers = new Map();
    const buttons = map.querySelector(".zoom");
    buttons.hidden = false;
    for (const button of buttons.children) {
      button.addEventListener("click", () => this.by(Number(button.dataset.zoom)));
      button.addEventListener("dblclick", (event) => event.stopPropagation());
    }
    map.addEventListener("dblclick", (event) => this.by(2, event.clientX, event.clientY));
    map.addEventListener("keydown", (event) => this.press(event));
    map.addEventListener(
      "wheel",
      (event) => {
        if (!event.ctrlKey && !event.metaKey) return;
        event.preventDefault();
        this.by(Math.exp(-event.deltaY / 300), event.clientX, event.clientY);
      },
      { passive: false },
    );
    map.addEventListener("pointerdown", (event) => {
      if (event.target.closest(".zoom")) return;
      this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
      if (this.zoom > 1) map.setPointerCapture(event.pointerId);
    });
    map.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      map.addEventListener(end, (event) => this.pointers.delete(event.pointerId));
    }
  }

  // Zoom by a factor about a place on the screen; 0 shows everything.
  by(factor, clientX, clientY) {
    const { left, top } = this.plane.getBoundingClientRect();
    const box = this.map.getBoundingClientRect();
    const atX = (clientX ?? box.left + box.width / 2) - left;
    const atY = (clientY ?? box.top + box.height / 2) - top;
    const before = this.zoom;
    this.zoom = factor ? Math.min(mostZoom, Math.max(1, before * factor)) : 1;
    const grown = this.zoom / before;
    this.move(this.x + atX * (1 - grown), this.y + atY * (1 - grown));
  }

  move(x, y) {
    const width = this.plane.offsetWidth / this.zoomShown();
    const height = this.plane.offsetHeight / this.zoomShown();
    this.x = Math.min(0, Math.max(x, width * (1 - this.zoom)));
    this.y = Math.min(0, Math.max(y, height * (1 - this.zoom)));
    this.map.style.setProperty("--zoom", this.zoom);
    this.map.style.setProperty("--grown", this.zoom ** 0.35);
    this.map.classList.toggle("zoomed", this.zoom > 1);
    this.plane.style.transform = `translate(${this.x}px, ${this.y}px)`;
  }

  zoomShown() {
    return Number(this.map.style.getPropertyValue("--zoom")) || 1;
  }

  drag(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...this.pointers.entries()].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    if (other) {
      const apart = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
      this.by(apart(now) / apart(before), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (this.zoom > 1) {
      this.move(this.x + now[0] - before[0], this.y + now[1] - before[1]);
    }
  }

  press(event) {
    const step = 60;
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const factor = { "+": 1.6, "=": 1.6, "-": 0.625, 0: 0 }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (factor !== undefined) this.by(factor);
    else if (moves[event.key] && this.zoom > 1) {
      this.move(this.x + step * moves[event.key][0], this.y + step * moves[event.key][1]);
    } else return;
    event.preventDefault();
  }
}
for (const map of document.querySelectorAll(".map")) new ZoomedMap(map);

// On a page that is served, an image of one's own is answered with those nearest to it.
const drop = document.getElementById("drop");
if (drop) {
  const file = document.getElementById("query-file");
  const querySaid = document.getElementById("query-said");
  const answer = document.getElementById("query-answer");

  const tile = (source, name, number, mark = "") => {
    const place = document.createElement("li");
    const box = document.createElement("div");
    box.className = "tile";
    const picture = document.createElement("img");
    picture.src = source;
    picture.alt = name;
    const named = document.createElement("span");
    named.className = "name";
    named.textContent = name;
    const said = document.createElement("span");
    said.textContent = number;
    box.append(picture, named, said);
    place.append(box);
    place.className = mark;
    return place;
  };

  const ask = async (image) => {
    if (image.size > Number(drop.dataset.maxBytes)) {
      querySaid.textContent = `${image.name} is larger than ${drop.dataset.maxBytes / 2 ** 20} MiB.`;
      return;
    }
    querySaid.textContent = `Looking at ${image.name} …`;
    answer.replaceChildren();
    let found;
    try {
      const response = await fetch("/neighbors", {
        method: "POST",
        headers: {
          "Content-Type": "application/octet-stream",
          "X-Form-Token": drop.dataset.token,
          Accept: "application/json",
        },
        body: image,
      });
      found = await response.json();
      if (!response.ok) throw new Error(found.error);
    } catch (error) {
      const isGone = error instanceof TypeError;
      querySaid.textContent = isGone ? "The server does not answer. Is it still running?" : error.message;
      return;
    }
    querySaid.textContent = `The images nearest to ${image.name}:`;
    const preview = URL.createObjectURL(image);
    for (const model of found.models) {
      if (found.models.length > 1) {
        const heading = document.createElement("h3");
        heading.textContent = model.name;
        answer.append(heading);
      }
      const strip = document.createElement("ol");
      strip.className = "strip neighbors scroll";
      strip.tabIndex = 0;
      strip.ariaLabel = `The images nearest to ${image.name}`;
      strip.append(tile(preview, image.name, "query", "query"));
      for (const near of model.neighbors) {
        const name = near.label === null ? near.name : `${near.name} ${near.label}`;
        strip.append(tile(near.image, name, near.distance.toFixed(3)));
      }
      answer.append(strip);
      sayItScrolls(strip);
    }
  };

  const take = (files) => {
    if (files.length) ask(files[0]);
  };
  file.addEventListener("change", () => take(file.files));
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    });
  }
  document.addEventListener("drop", (event) => take(event.dataTransfer.files));
}
