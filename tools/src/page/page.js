// Keeps an open page up to date: the agent draws its parts anew, and those that differ are put in
// their places. Nothing is asked for while the page is hidden or paused. Without this script the
// page is the same, and Reload does it.
"use strict";
(() => {
  const LEAST_MS = 2000, MOST_MS = 30000;
  const live = document.getElementById("live"), pause = document.getElementById("pause");
  const drawn = new WeakMap();      // what stands in a place by now
  let isPaused = false, timer = 0, waitMs = LEAST_MS, isAsking = false;

  const say = text => { if (live.textContent !== text) live.textContent = text; };

  function address() {
    const query = new URLSearchParams(location.search);
    const lines = document.getElementById("lines");
    if (lines) query.set("after", lines.dataset.after);
    // whole: an address with a password in it can be opened, but no other be made from it
    return location.origin + "/api" + location.pathname + "?" + query;
  }

  // What has the focus gets it back, where it is there still; what is being marked or typed stays.
  function put(place, html) {
    if (drawn.get(place) === html) return;
    const focus = place.contains(document.activeElement) ? document.activeElement : null;
    const marked = document.getSelection();
    if (focus && focus.matches("input, select")) return;
    if ([...place.querySelectorAll("input")].some(each => each.value !== each.defaultValue)) return;
    if (marked && !marked.isCollapsed && place.contains(marked.anchorNode)) return;
    const href = focus && focus.getAttribute("href");
    place.innerHTML = html;
    drawn.set(place, html);
    const next = [...place.querySelectorAll("a")].find(each => each.getAttribute("href") === href);
    if (focus && next) next.focus({ preventScroll: true });
  }

  // A part that was not there before, as the sessions that a session has begun meanwhile.
  function addPart(name, last) {
    const place = document.createElement("section");
    place.id = name;
    place.setAttribute("aria-labelledby", "h-" + name);
    if (last) last.after(place); else document.querySelector(".top").prepend(place);
    return place;
  }

  function follow(log) {
    const lines = document.getElementById("lines"), box = document.getElementById("follow");
    if (!lines) return;
    if (log.html) {
      lines.insertAdjacentHTML("beforeend", log.html);
      if (box && !box.hidden && box.querySelector("input").checked)
        lines.scrollTop = lines.scrollHeight;
    }
    lines.dataset.after = log.after;
    if (box && log.is_over) box.hidden = true;
  }

  async function ask() {
    if (isAsking || isPaused || document.hidden) return;
    isAsking = true;
    const begun = performance.now();
    try {
      const answer = await fetch(address(), { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const body = await answer.json();
      document.title = body.title;
      put(document.getElementById("heading"), body.heading);
      put(document.getElementById("status"), body.status);
      let last = null;
      for (const name of Object.keys(body.parts)) {
        const place = document.getElementById(name) || addPart(name, last);
        put(place, body.parts[name]);
        last = place;
      }
      if (body.log) follow(body.log);
      say("live");
      // an agent with much to tell is asked less often
      waitMs = Math.max(LEAST_MS, 10 * (performance.now() - begun));
    } catch (error) {
      say(error instanceof TypeError ? "no connection" : "not shown (" + error.message + ")");
      waitMs = Math.min(MOST_MS, 2 * waitMs);
    }
    isAsking = false;
    plan();
  }

  function plan() {
    clearTimeout(timer);
    if (!isPaused && !document.hidden) timer = setTimeout(ask, waitMs);
  }

  pause.hidden = false;
  document.getElementById("reload").hidden = true;
  pause.addEventListener("click", () => {
    isPaused = !isPaused;
    pause.textContent = isPaused ? "Go on" : "Pause";
    say(isPaused ? "paused" : "live");
    if (!isPaused) { waitMs = LEAST_MS; ask(); }
    plan();
  });
  document.addEventListener("visibilitychange", () => { document.hidden ? plan() : ask(); });

  const box = document.getElementById("follow"), lines = document.getElementById("lines");
  if (box && lines) {
    box.hidden = false;
    lines.scrollTop = lines.scrollHeight;
    lines.addEventListener("scroll", () => {
      box.querySelector("input").checked =
        lines.scrollHeight - lines.scrollTop - lines.clientHeight < 40;
    });
  }
  plan();
})();
