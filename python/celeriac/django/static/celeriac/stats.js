/* The live part of the page admin/cache/stats: every two seconds the numbers and curves that the
   server has, put where they belong. It computes nothing, and stops while the page isn't seen. */
"use strict";

(() => {
  const EVERY = 2000;
  const bar = document.querySelector(".celeriac-live");
  if (!bar) return; // the store can't be used: nothing to follow
  const button = bar.querySelector(".celeriac-pause");
  const state = bar.querySelector(".celeriac-state");
  const changed = document.querySelector(".celeriac-changed");
  const rows = [...document.querySelectorAll("[data-queue]")];
  const shown = JSON.stringify(rows.map((row) => row.dataset.queue));
  let paused = false;
  let failing = false;

  const say = (text) => {
    if (state.textContent !== text) state.textContent = text; // or it would be read out again
  };

  const show = (found) => {
    const same = JSON.stringify(found.queues.slice(0, rows.length)) === shown;
    if (changed) changed.hidden = same && found.queues.length === rows.length;
    for (const place of document.querySelectorAll("[data-text]")) {
      const text = found.texts[place.dataset.text];
      if (text === undefined || (!same && place.closest("[data-queue]"))) continue;
      if (place.textContent !== text) place.textContent = text;
    }
    for (const line of document.querySelectorAll("[data-line]")) {
      line.setAttribute("points", found.lines[line.dataset.line] ?? "");
    }
  };

  const follow = async () => {
    if (paused || document.hidden) return;
    try {
      const answer = await fetch("?live", { headers: { Accept: "application/json" } });
      const found = await answer.json(); // a login page is none
      if (!answer.ok) throw new Error(found.reason);
      if (paused) return;
      show(found);
      failing = false;
      say("Updated every two seconds.");
    } catch (error) {
      const why = error instanceof SyntaxError ? "log in again." : error.message;
      if (!failing) say(`Not updated since ${new Date().toLocaleTimeString()}: ${why}`);
      failing = true;
    }
  };

  const loop = async () => {
    await follow();
    setTimeout(loop, failing ? 5 * EVERY : EVERY);
  };

  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused." : "Updated every two seconds.");
  });

  bar.hidden = false;
  setTimeout(loop, EVERY);
})();
