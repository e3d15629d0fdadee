"use strict";
// The browser stores marks until they are saved: by box, so that another box of the same picture has no mark.
const STORE = "kvg-boxes";
const page = JSON.parse(document.getElementById("page").textContent);
const figures = [...document.querySelectorAll("figure")];
let memory = {}; // fallback for browsers without localStorage for files

function kept() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) || {};
  } catch {
    return memory;
  }
}

function keep(id, bad) {
  const all = kept(); // read again: another page may have written in between
  all[id] = bad;
  memory = all;
  try {
    localStorage.setItem(STORE, JSON.stringify(all));
  } catch {
    // the marks are lost when the page is closed
  }
}

function isBad(box, all) {
  return all[box.id] === undefined ? box.bad : all[box.id];
}

const SAVED = `${STORE}/${page.file}`;
let saved = null; // text of the last saved file
try {
  saved = localStorage.getItem(SAVED);
} catch {
  // no localStorage
}

function lines() {
  const all = kept();
  const reviewed = page.boxes.filter((box) => box.bad || all[box.id] !== undefined);
  return reviewed.map((box) => ({ source: box.source, ref: box.ref, box_px: box.box_px, bad: isBad(box, all) }));
}

function show() {
  const all = kept();
  let num = 0, open = 0;
  page.boxes.forEach((box, n) => {
    const bad = isBad(box, all);
    num += bad;
    open += bad !== box.bad;
    figures[n].setAttribute("aria-checked", String(bad));
  });
  const isSaved = saved !== null && saved === JSON.stringify(lines());
  const rest = isSaved ? `saved as ${page.file}: put it into this page's folder` : open ? "not saved yet" : "";
  document.getElementById("count").textContent = `${num} of ${page.boxes.length} ticked as bad`;
  document.getElementById("state").textContent = rest;
}

function toggle(n) {
  keep(page.boxes[n].id, !isBad(page.boxes[n], kept()));
  show();
}

function step(n, by) {
  const seen = figures.filter((figure) => figure.offsetParent !== null);
  const next = seen[seen.indexOf(figures[n]) + by];
  if (next) next.focus();
}

figures.forEach((figure, n) => {
  figure.addEventListener("click", () => toggle(n));
  figure.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") toggle(n);
    else if (event.key === "ArrowRight") step(n, 1);
    else if (event.key === "ArrowLeft") step(n, -1);
    else return;
    event.preventDefault();
  });
});

document.getElementById("only").addEventListener("change", (event) => {
  document.body.classList.toggle("only", event.target.checked);
});

document.getElementById("save").addEventListener("click", () => {
  const reviewed = lines(), when = Date.now();
  const text = reviewed.map((line) => JSON.stringify({ ...line, saved: when }) + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/jsonl" }));
  link.download = page.file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  saved = JSON.stringify(reviewed);
  try {
    localStorage.setItem(SAVED, saved);
  } catch {
    // the state is lost when the page is closed
  }
  show();
});

window.addEventListener("storage", show);
window.addEventListener("pageshow", show); // also after the browser restores the page from its cache
show();
