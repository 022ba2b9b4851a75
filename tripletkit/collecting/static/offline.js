"use strict";
// The page without a server: answers stay in this browser until they are saved as a file.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const images = JSON.parse(byId("images").textContent);
  const form = byId("answer");
  const fill = (key, values) => data.words[key].replace(/{(\w+)}/g, (found, name) => values[name]);
  const isGrid = document.body.classList.contains("grid");
  const KEPT = `tripletkit-${data.database}-${data.screens[0].id}`;
  const EXPECTED_MS = 4000;

  let clock = { since: null, kept: 0 };
  let isMemoryOnly = false;
  let answers = [];
  let consent = null;
  try {
    answers = JSON.parse(localStorage.getItem(KEPT)) || [];
    consent = JSON.parse(localStorage.getItem(`${KEPT}-consent`));
  } catch (error) { isMemoryOnly = true; }
  // Where the study asks for consent, nobody answers before it is given, to this very text.
  const isMissing = () => Boolean(data.consent) && (!consent || consent.text !== data.consent);

  const say = (text, isProblem = false) => {
    byId("said").textContent = text;
    byId("said").classList.toggle("problem", isProblem);
  };
  const keep = () => {
    try {
      localStorage.setItem(KEPT, JSON.stringify(answers));
      localStorage.setItem(`${KEPT}-consent`, JSON.stringify(consent));
    } catch (error) { isMemoryOnly = true; }
    if (isMemoryOnly) say(data.words.offline_not_kept, true);
  };
  const makeId = () =>
    [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
  const isAway = () => document.hidden || byId("instructions").open;
  const stopClock = () => {
    if (clock.since !== null) { clock.kept += performance.now() - clock.since; clock.since = null; }
  };
  const goOnClock = () => { if (clock.since === null && !isAway()) clock.since = performance.now(); };
  const boxes = () => [...form.querySelectorAll("input[type=checkbox]")];
  const picked = () => boxes().filter((box) => box.checked).map((box) => Number(box.value));
  const current = () => data.screens[answers.length];

  const put = (image, place) => {
    image.src = images[place];
    return image.decode().catch(() => {}).then(() =>
      image.classList.toggle("tiny", Math.max(image.naturalWidth, image.naturalHeight) <= 128));
  };
  const checkPicks = () => {
    if (!isGrid || !current()) return;
    const n = picked().length;
    byId("submit-grid").disabled = !n || n > current().pick;
    for (const box of boxes()) box.disabled = !box.checked && n >= current().pick;
  };
  const show = async () => {
    const screen = current();
    byId("bar").max = data.screens.length;
    byId("bar").value = answers.length;
    const times = answers.map((answer) => answer.response_ms).sort((a, b) => a - b);
    const each = times.length ? times[Math.floor(times.length / 2)] : EXPECTED_MS;
    const minutes = Math.round((data.screens.length - answers.length) * (each + 300) / 60000);
    byId("progress").textContent = fill(minutes ? "progress" : "progress_soon", { done: answers.length, total: data.screens.length, minutes });
    form.hidden = !screen;
    byId("finished").hidden = Boolean(screen);
    byId("undo").disabled = !answers.length;
    if (!screen) { byId("save").focus(); return; }
    for (const box of boxes()) box.checked = false;
    const slots = isGrid ? [...document.querySelectorAll(".grid-images img")] : [byId("left").firstElementChild, byId("right").firstElementChild];
    await Promise.all([put(byId("anchor"), screen.anchor), ...slots.map((image, place) => put(image, screen.shown[place]))]);
    checkPicks();
    clock = { since: null, kept: 0 };
    goOnClock();
  };
  const openInstructions = () => { stopClock(); byId("instructions").showModal(); };
  const answer = (side, places = []) => {
    if (!current() || isAway()) return;
    if (isMissing()) { openInstructions(); return; }
    stopClock();
    answers.push({
      client_id: makeId(), screen: current().id, side, places, response_ms: Math.round(clock.kept * 10) / 10,
      method: "offline", at: new Date().toISOString(),
    });
    say("");
    keep();
    show();
  };
  const undo = () => {
    if (!answers.length) return;
    answers.pop();
    keep();
    say(data.words.taken_back);
    show();
  };
  const save = () => {
    const { format, database, key, judge } = data;
    const text = JSON.stringify({ format, database, key, judge, ...(consent && { consent }), answers });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `answers-${data.judge.replace(/[^\p{L}\p{N}]+/gu, "-")}.json`;
    link.click();
    URL.revokeObjectURL(link.href);
    say(fill("offline_saved", { n: answers.length, file: link.download }));
  };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", checkPicks);
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.value === "undo") undo();
    else if (button.value === "grid") answer("grid", picked());
    else answer(button.value);
  });
  window.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || byId("instructions").open) return;
    const box = isGrid && /^[1-9]$/.test(event.key) ? boxes()[Number(event.key) - 1] : null;
    if (event.key === "ArrowDown") answer("neither");
    else if (event.key === "Backspace") undo();
    else if (!isGrid && event.key === "ArrowLeft") answer("left");
    else if (!isGrid && event.key === "ArrowRight") answer("right");
    else if (box) { if (!box.disabled) { box.checked = !box.checked; checkPicks(); } }
    else if (isGrid && event.key === "Enter" && event.target.tagName !== "BUTTON") {
      if (current() && !byId("submit-grid").disabled) answer("grid", picked());
    } else return;
    event.preventDefault();
  });
  byId("show-instructions").addEventListener("click", openInstructions);
  byId("instructions").addEventListener("close", goOnClock);
  document.addEventListener("visibilitychange", () => (document.hidden ? stopClock() : goOnClock()));
  byId("save").addEventListener("click", save);
  byId("save-now").addEventListener("click", save);
  byId("undo-last").addEventListener("click", undo);
  if (data.consent) {
    byId("agree").checked = !isMissing();
    byId("agree").addEventListener("change", (event) => {
      consent = event.target.checked ? { text: data.consent, at: new Date().toISOString() } : null;
      keep();
    });
    byId("instructions").addEventListener("cancel", (event) => { if (isMissing()) event.preventDefault(); });
  }
  show();
  if (!answers.length || isMissing()) openInstructions();
})();
