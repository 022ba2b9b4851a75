"use strict";
// The page of a judge. One answer is on its way at a time; it is kept in this tab until the server
// has said that it is on the disk, so neither a reload nor a lost connection loses it.
(() => {
  const main = document.getElementById("ask");
  const form = document.getElementById("answer");
  const said = document.getElementById("said");
  const formToken = main.dataset.formToken;
  const UNSENT = `tripletkit-unsent-${formToken.slice(0, 16)}`;
  const SIZES = [["small", 360], ["medium", 720], ["large", 1280]];
  const LOADING_AT_MOST_MS = 8000;
  const isGrid = document.body.classList.contains("grid");

  const words = JSON.parse(main.dataset.words);
  const fill = (key, values) => words[key].replace(/{(\w+)}/g, (found, name) => values[name]);
  let state = JSON.parse(main.dataset.state);
  let isBusy = true;
  let lastPointer = "mouse";
  let clock = null;
  let waker = null;
  const ahead = new Map();

  const byId = (id) => document.getElementById(id);
  const say = (text, isProblem = false) => {
    said.textContent = text;
    said.classList.toggle("problem", isProblem);
  };
  const makeId = () =>
    [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
  // Every judge has pages of their own, below wherever the study is served.
  const { base, root } = main.dataset;
  const address = (image, size) => root.replace("/0/?", `/${image}/${size}?`);
  const srcset = (image) => SIZES.map(([size, px]) => `${address(image, size)} ${px}w`).join(", ");

  // Time that counts: from all images being there, without pauses and without other tabs.
  const startClock = () => { clock = { since: performance.now(), kept: 0 }; if (isAway()) stopClock(); };
  const stopClock = () => {
    if (clock && clock.since !== null) { clock.kept += performance.now() - clock.since; clock.since = null; }
  };
  const goOnClock = () => { if (clock && clock.since === null && !isAway()) clock.since = performance.now(); };
  const readClock = () => (clock ? clock.kept + (clock.since === null ? 0 : performance.now() - clock.since) : 0);
  const isAway = () => document.hidden || Boolean(document.querySelector("dialog[open]"));

  const put = (image, number) => {
    const wanted = srcset(number);
    image.classList.remove("tiny", "broken");
    if (image.getAttribute("srcset") !== wanted) {
      image.srcset = wanted;
      image.src = address(number, "medium");
    }
    return image.decode().then(
      () => image.classList.toggle("tiny", image.naturalWidth > 0 && Math.max(image.naturalWidth, image.naturalHeight) <= 128),
      () => {
        // A newer question took its place, or its file cannot be read.
        if (image.getAttribute("srcset") !== wanted) return;
        image.classList.add("broken");
        say(words.cannot_be_shown, true);
      },
    );
  };
  const slots = () => (isGrid ? [...document.querySelectorAll(".grid-images img")] : [byId("left").firstElementChild, byId("right").firstElementChild]);

  const loadAhead = () => {
    for (const screen of state.screens.slice(1)) {
      [screen.anchor, ...screen.shown].forEach((number, place) => {
        if (ahead.has(number)) return;
        const image = new Image();
        image.sizes = (place ? slots()[0] : byId("anchor")).sizes;
        image.srcset = srcset(number);
        ahead.set(number, image);
      });
    }
    while (ahead.size > 60) ahead.delete(ahead.keys().next().value);
  };

  const setEnabled = (isEnabled) => {
    // Not `disabled`: the focus of who answers with the keyboard would be lost.
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", !isEnabled);
    byId("undo").disabled = false;
    byId("undo").setAttribute("aria-disabled", !isEnabled || !state.can_undo);
    if (isGrid) checkPicks();
  };

  const show = async () => {
    const screen = state.screens[0];
    byId("bar").value = state.done;
    byId("bar").max = state.total;
    byId("progress").textContent = state.progress;
    if (!screen) { window.location.assign(`${base}done`); return; }
    form.elements.screen.value = screen.id;
    form.classList.add("loading");
    for (const chosen of form.querySelectorAll(".chosen")) chosen.classList.remove("chosen");
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = false;
    const images = [[byId("anchor"), screen.anchor], ...slots().map((image, place) => [image, screen.shown[place]])];
    const loaded = Promise.all(images.map(([image, number]) => put(image, number)));
    await Promise.race([loaded, new Promise((done) => setTimeout(done, LOADING_AT_MOST_MS))]);
    form.classList.remove("loading");
    isBusy = false;
    setEnabled(true);
    startClock();
    loadAhead();
  };

  // Sends until the server has it, however long that takes.
  const send = async (message) => {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const reply = await fetch(base + message.path, {
          method: "POST",
          headers: { "Content-Type": "application/json", Accept: "application/json", "X-Form-Token": formToken },
          body: JSON.stringify(message.body),
          signal: AbortSignal.timeout(15000),
        });
        if (reply.ok || reply.status === 409) return { ...(await reply.json()), status: reply.status };
        if (reply.status < 500) {
          const text = await reply.json().then((got) => got.error, () => "");
          return { status: reply.status, error: text };
        }
      } catch (error) { /* No connection, or none in time. */ }
      const wait = Math.min(1000 * 2 ** attempt, 10000);
      say(words.no_connection, true);
      await new Promise((done) => { waker = done; setTimeout(done, wait); });
    }
  };

  const deliver = async (message) => {
    isBusy = true;
    setEnabled(false);
    stopClock();
    sessionStorage.setItem(UNSENT, JSON.stringify(message));
    const reply = await send(message);
    sessionStorage.removeItem(UNSENT);
    if (reply.screens === undefined) {
      say(reply.error || words.load_again, true);
      return;
    }
    state = reply;
    const isUndo = message.path === "undo";
    if (reply.status === 409) say(words.answered_already);
    else if (isUndo) say(reply.undone ? words.taken_back : words.nothing_to_take_back);
    else say("");
    await show();
    // Read before the next question, which waits behind it.
    if (reply.feedback) openDialog("pause", "", reply.feedback);
    if (!isUndo && reply.status === 200 && state.pause_due) openDialog("pause", fill("take_a_break", state));
  };

  const answer = (side, method, places = []) => {
    if (isBusy || isAway()) return;
    const chosen = byId(side);
    if (chosen) chosen.classList.add("chosen");
    deliver({
      path: "answer",
      body: {
        client_id: makeId(),
        screen: state.screens[0].id,
        side,
        places,
        response_ms: Math.round(readClock() * 10) / 10,
        method,
      },
    });
  };
  const undo = () => {
    if (isBusy || isAway() || !state.can_undo) return;
    deliver({ path: "undo", body: { undo_id: makeId() } });
  };

  const boxes = () => [...form.querySelectorAll("input[type=checkbox]")];
  const picked = () => boxes().filter((box) => box.checked).map((box) => Number(box.value));
  const checkPicks = () => {
    const n = picked().length;
    const wanted = state.screens[0] ? state.screens[0].pick : 0;
    byId("submit-grid").setAttribute("aria-disabled", isBusy || !n || n > wanted);
    for (const box of boxes()) box.disabled = !box.checked && n >= wanted;
  };

  // The image that has the focus or the pointer, or the anchor; then one after the other.
  const zoom = (step) => {
    const images = [byId("anchor"), ...slots()];
    const near = document.querySelector("#answer .choice:focus-visible img, #answer .choice:hover img");
    const shown = images.findIndex((image) => image.src === byId("zoomed").src);
    const image = step ? images[(shown + step + images.length) % images.length] : near || images[0];
    byId("zoomed").alt = image.alt;
    byId("zoomed").srcset = image.srcset;
    byId("zoomed").src = image.src;
    byId("zoomed").sizes = "100vw";
    if (!step) openDialog("zoom");
  };
  const openDialog = (id, text, title) => {
    stopClock();
    if (id === "pause") {
      byId("pause-title").textContent = title || words.pause;
      byId("pause-text").textContent = text;
    }
    byId(id).showModal();
  };
  for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("close", goOnClock);
  document.addEventListener("visibilitychange", () => (document.hidden ? stopClock() : goOnClock()));
  window.addEventListener("online", () => waker && waker());
  window.addEventListener("pointerdown", (event) => { lastPointer = event.pointerType; }, true);

  form.addEventListener("change", checkPicksIfGrid);
  function checkPicksIfGrid() { if (isGrid) checkPicks(); }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    event.preventDefault();
    if (button.getAttribute("aria-disabled") === "true") return;
    // A click without a pointer was made with the keyboard.
    const method = event.detail === 0 ? "keyboard" : lastPointer === "mouse" ? "mouse" : "touch";
    if (button.id === "undo") undo();
    else if (button.value === "grid") answer("grid", method, picked());
    else answer(button.value, method);
  });
  window.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    const key = event.key;
    if (byId("zoom").open) {
      if (key === "z" || key === "Z") byId("zoom").close();
      else if (key === "ArrowLeft" || key === "ArrowRight") zoom(key === "ArrowLeft" ? -1 : 1);
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    const box = isGrid && /^[1-9]$/.test(key) ? boxes()[Number(key) - 1] : null;
    if (key === "ArrowDown") answer("neither", "keyboard");
    else if (key === "Backspace") undo();
    else if (!isGrid && (key === "ArrowLeft" || key === "ArrowRight")) answer(key === "ArrowLeft" ? "left" : "right", "keyboard");
    else if (box) { if (!box.disabled) { box.checked = !box.checked; checkPicks(); } }
    else if (isGrid && key === "Enter" && event.target.tagName !== "BUTTON") {
      if (byId("submit-grid").getAttribute("aria-disabled") !== "true") answer("grid", "keyboard", picked());
    } else if (key === "z" || key === "Z") zoom(0);
    else if (key === "p" || key === "P") openDialog("pause", words.no_time_counted);
    else return;
    event.preventDefault();
  });
  for (const id of ["instructions", "pause"]) {
    const button = byId(`show-${id}`);
    button.hidden = false;
    button.addEventListener("click", () => openDialog(id, id === "pause" ? words.no_time_counted : ""));
  }
  byId("show-zoom").hidden = false;
  byId("show-zoom").addEventListener("click", () => zoom(0));
  byId("zoom-next").addEventListener("click", () => zoom(1));
  // A page that comes back from the browser's memory shows an old question.
  window.addEventListener("pageshow", (event) => { if (event.persisted) window.location.reload(); });

  setEnabled(false);
  const unsent = sessionStorage.getItem(UNSENT);
  if (unsent) deliver(JSON.parse(unsent));
  else show();
})();
