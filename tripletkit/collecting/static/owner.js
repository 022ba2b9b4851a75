"use strict";
// Copies links, and asks before what ends something.
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.dataset.link);
    button.textContent = "Copied";
  });
}
for (const form of document.querySelectorAll("form[data-question]")) {
  form.addEventListener("submit", (event) => { if (!window.confirm(form.dataset.question)) event.preventDefault(); });
}
