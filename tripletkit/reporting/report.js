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
  const rows = [...table.tBodies[0].rows].map((row) => [valueOf(row), row]);
  const isNumeric = rows.every(([value]) => value !== "" && !Number.isNaN(Number(value)));
  rows.sort(([a], [b]) => (isNumeric ? a - b : a.localeCompare(b)) * (isDown ? -1 : 1));
  table.tBodies[0].append(...rows.map(([, row]) => row));
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
